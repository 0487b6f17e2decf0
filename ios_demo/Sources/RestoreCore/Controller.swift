/// Why a restoration ended.
public enum Stop: String, Sendable {
  case quality, regression, plateau, iterations, budget, broken, cancelled
}

/// What to do next; everything but `stop` is one call of the program.
public enum Action: Equatable, Sendable {
  /// Encode the whole picture as it is now, made small; the tile is the one that is due after it.
  case look(Int)
  /// Encode a tile's current picture.
  case encode(Int)
  /// Encode a mirror image of a tile's original: as many as the tile had iterations, see `Controller.views`.
  case mirror(Int)
  /// Encode a tile's original again: its features were given up for room.
  case recall(Int)
  case refine(Int)
  case stop
}

/// What is known of one tile.
public struct TileState: Equatable, Sendable {
  /// Its share of the picture.
  public let area: Double
  public internal(set) var iteration = 0
  public internal(set) var bestIteration = 0
  public internal(set) var quality: Double?
  public internal(set) var done: Stop?
  /// What the next refine is compared with: the kept picture's quality as encode, not the refine before, saw it, if it did; of a
  /// view the best that was said of those it joins.
  var assessed = 0.0
  var prospect = Prospect(belief: 0, variance: 0, upright: false)
  /// By how much its next iteration is expected to lower the picture's error.
  var gain = Double.infinity
  var original = false
  var estimate = false

  init(area: Double) { self.area = area }

  /// Mirror images that it is restored in.
  var views: Int { prospect.upright ? 1 : Controller.views }

  /// The mirror image that its next iteration restores; 0 where that goes on from the last result.
  var view: Int { iteration <= views ? iteration : 0 }

  /// Looks at the whole picture that its next iteration goes by; all of its views go by the first one's.
  var looks: Int { max(1, iteration - views + 1) }
}

/// One restoration's decisions: a pure state machine, without clock, model, or input and output.
///
/// It is told what a step cost, what the assessment was and how much time has passed. The second iteration restores the mirror
/// image of the picture as it came, the third and fourth the two that are upside down, where that is allowed, and each joins the
/// mean of those before; later ones go on from there. Its rules are in docs/conformance.md; tests/conformance holds the cases
/// that Python, Kotlin and Swift share.
public struct Controller: Sendable {
  /// A predicted loss is believed from here on, 2 dB: less is within the heads' scatter.
  static let tolerance = 0.05
  /// Mirror images that a tile is restored in: left and right exchanged, upside down, both.
  static let views = 3

  public let policy: Policy
  public private(set) var cost: CostModel
  public private(set) var tiles: [TileState]
  public private(set) var reason: Stop?
  public private(set) var roundsLookedAt = 0
  private let looks: Bool
  private let keep: Int
  private var last = Stop.iterations
  private var error = 0.0
  private var known = 0.0
  private var held: Set<Int> = []
  private var surveyed: Set<Int> = []
  private var open: Set<Int>

  /// `areas`: every tile's share of the picture, summing to 1. `looks`: the whole picture is looked at before each round of
  /// iterations. `keep`: features of how many pictures may be kept beside those of the tile in hand.
  public init(policy: Policy, cost: CostModel, areas: [Double] = [1], looks: Bool = false, keep: Int = 1_000_000) {
    self.policy = policy
    self.cost = cost
    self.looks = looks
    self.keep = keep
    tiles = areas.map(TileState.init)
    open = policy.maxIterations == 0 ? [] : Set(areas.indices)
  }

  /// The next step that is predicted to end before the deadline, `elapsedMs` after the call; `.stop` sets `reason`.
  public mutating func choose(elapsedMs: Double) -> Action {
    if reason != nil { return .stop }
    if tiles.count > 1 && goodEnough {
      reason = .quality
    } else if open.isEmpty {
      reason = last
    } else if let index = next(elapsedMs) {
      return step(index)
    } else {
      reason = .budget
    }
    return .stop
  }

  /// The whole picture was looked at. `survey`: tiles are to be encoded before the first is refined, all or, where their features
  /// cannot be kept, as many as can, evenly spread; there is none of one tile, nor where one iteration of every tile does not fit.
  public mutating func looked(ms: Double, survey: Bool = false) {
    cost.encode.observe(ms)
    roundsLookedAt += 1
    let kept = min(tiles.count, keep)
    if survey && kept > 1 && hasTimeForAll { surveyed = Set((0..<kept).map { $0 * tiles.count / kept }) }
  }

  /// A tile's current picture was encoded: its assessed quality and, which counts the first time alone, its prospect.
  public mutating func encoded(_ index: Int, quality: Double, prospect: Prospect, ms: Double) {
    cost.encode.observe(ms)
    let quality = quality.isNaN ? 0 : quality
    tiles[index].estimate = true
    if tiles[index].iteration == tiles[index].bestIteration { tiles[index].assessed = quality }
    if tiles[index].iteration == 0 {
      tiles[index].original = true
      if tiles[index].quality == nil {
        tiles[index].prospect = prospect
        tiles[index].gain = tiles[index].area * Quality.error(quality) * (prospect.belief * prospect.belief)
        keep(index, quality)
        if enough(tiles[index], quality) {
          finish(index, .quality)
        } else if settled(tiles[index], quality) {
          finish(index, .plateau)
        }
      }
    }
    makeRoom(working: index)
  }

  /// A mirror image of a tile's original was encoded, which says nothing of the kept picture.
  public mutating func mirrored(_ index: Int, ms: Double) {
    cost.encode.observe(ms)
    tiles[index].estimate = true
    tiles[index].assessed = max(tiles[index].assessed, tiles[index].quality ?? 0)
    makeRoom(working: index)
  }

  /// A tile's original was encoded again.
  public mutating func recalled(_ index: Int, ms: Double) {
    cost.encode.observe(ms)
    tiles[index].original = true
    makeRoom(working: index)
  }

  /// An iteration of a tile ended with a predicted quality; NaN says that the result was broken and thrown away. `difference`: of
  /// a view, the mean squared difference of its restoration from the mean that it joined.
  public mutating func refined(_ index: Int, quality: Double, ms: Double, difference: Double) {
    cost.refine.observe(ms)
    tiles[index].iteration += 1
    tiles[index].estimate = false
    guard !quality.isNaN else {
      finish(index, .broken)
      return
    }
    let kept = keeps(index, quality: quality)
    if kept { keep(index, quality) }
    tiles[index].gain = tiles[index].area * Self.expected(tiles[index], quality, difference)
    let tile = tiles[index]
    let forced = tile.iteration < policy.minIterations
    if kept && enough(tile, quality) {
      finish(index, .quality)
    } else if !kept && !forced {
      finish(index, .regression)
    } else if settled(tile, quality) {
      finish(index, .plateau)
    } else if tile.iteration >= policy.maxIterations {
      finish(index, .iterations)
    }
    makeRoom(working: index)
  }

  /// Whether the picture shall show what a refine gave, by its predicted quality; no when that is NaN.
  public func keeps(_ index: Int, quality: Double) -> Bool {
    !quality.isNaN && (!policy.rollback || quality - tiles[index].assessed >= -Self.tolerance)
  }

  /// The caller wants no more; the best so far stands. Where nothing was left to do, that is the reason still.
  public mutating func cancel() { reason = reason ?? (open.isEmpty ? last : .cancelled) }

  /// A step passed the deadline and was left; the best so far stands.
  public mutating func late() { reason = reason ?? .budget }

  /// Whether tiles are encoded, or were, before the first is refined.
  public var surveys: Bool { !surveyed.isEmpty }

  /// Of the picture as kept: that of the mean squared error of its tiles, as far as they were assessed; 0 before.
  public var quality: Double {
    if tiles.count == 1 { return tiles[0].quality ?? 0 }
    return known > 0 ? Quality.of(error: error / known) : 0
  }

  /// The highest iteration that any tile keeps.
  public var bestIteration: Int { tiles.map(\.bestIteration).max() ?? 0 }

  /// Upper estimate of what is still needed to end a tile's next iteration.
  public func predictedMs(_ index: Int) -> Double {
    let tile = tiles[index]
    let needs = [lookIsDue(tile), !tile.estimate, originalIsMissing(tile)]
    return Double(needs.count { $0 }) * cost.encode.upper + cost.refine.upper
  }

  /// By how much a tile's next iteration is expected to lower its error.
  ///
  /// Of the mean squared error of one of n views, v differs from view to view, so that their mean has v / n of it, and loses
  /// v / n (n + 1) by one more. The last view and the mean of the n − 1 before differ by v n / (n − 1); before there are two, v is
  /// a share of the error, by degradation. Going on after the views gains nothing.
  private static func expected(_ tile: TileState, _ quality: Double, _ difference: Double) -> Double {
    let count = Double(tile.iteration)
    if tile.view == 0 { return 0 }
    if tile.iteration == 1 { return tile.prospect.variance * Quality.error(quality) / 2 }
    return difference * (count - 1) / (count * count * (count + 1))
  }

  /// Whether a tile of this quality has no iteration to come that is worth it, or forced.
  private func settled(_ tile: TileState, _ quality: Double) -> Bool {
    let worth = Quality.error(quality) - Quality.error(quality + policy.minGain)
    return tile.iteration >= policy.minIterations && tile.gain <= tile.area * worth
  }

  /// The tile as it is now is what the picture shows.
  private mutating func keep(_ index: Int, _ quality: Double) {
    if let before = tiles[index].quality {
      error -= tiles[index].area * Quality.error(before)
    } else {
      known += tiles[index].area
    }
    error += tiles[index].area * Quality.error(quality)
    tiles[index].bestIteration = tiles[index].iteration
    tiles[index].quality = quality
  }

  /// Whether one tile goes before another: early iterations in rounds, of the first round what is to be surveyed, then what was
  /// assessed; then by expected gain, fewest iterations, index.
  private func precedes(_ one: Int, _ other: Int) -> Bool { rank(one) < rank(other) }

  /// 1 when a tile had its first iterations; before that its part in the survey, then its expected gain below zero; its
  /// iterations, its index.
  private func rank(_ index: Int) -> (Int, Double, Int, Int) {
    let tile = tiles[index]
    if tile.iteration >= max(1, policy.minIterations) { return (1, -tile.gain, tile.iteration, index) }
    let urgency = tile.quality == nil ? (surveyed.contains(index) ? -2.0 : 0) : (tile.iteration == 0 ? -1 - tile.gain : 0)
    return (0, urgency, tile.iteration, index)
  }

  /// The first tile in the order whose iteration fits; nil where none does.
  private func next(_ elapsedMs: Double) -> Int? {
    guard let first = open.min(by: precedes) else { return nil }
    return fits(first, elapsedMs) ? first : open.filter { fits($0, elapsedMs) }.min(by: precedes)
  }

  private func fits(_ index: Int, _ elapsedMs: Double) -> Bool {
    guard let budget = policy.budgetMs else { return true }
    return tiles[index].iteration < policy.minIterations || elapsedMs + predictedMs(index) <= budget
  }

  /// Whether one iteration of every tile is forced, or predicted to fit the budget.
  private var hasTimeForAll: Bool {
    guard let budget = policy.budgetMs else { return true }
    let (encode, refine) = (cost.encode.upper, cost.refine.upper)
    return policy.minIterations > 0 || encode + Double(tiles.count) * (encode + refine) <= budget
  }

  private func step(_ index: Int) -> Action {
    let tile = tiles[index]
    if lookIsDue(tile) { return .look(index) }
    if !tile.estimate { return tile.view > 0 ? .mirror(index) : .encode(index) }
    return originalIsMissing(tile) ? .recall(index) : .refine(index)
  }

  /// Whether the next iteration wants features that were given up; that of a mirror image reads none of the original.
  private func originalIsMissing(_ tile: TileState) -> Bool { !tile.original && tile.iteration > tile.views }

  private func lookIsDue(_ tile: TileState) -> Bool { looks && roundsLookedAt < tile.looks }

  /// Whether the whole picture has the wanted quality, and every tile its least iterations.
  private var goodEnough: Bool {
    guard let wanted = policy.minQuality, quality >= wanted else { return false }
    return tiles.allSatisfy { $0.quality != nil && ($0.done != nil || $0.iteration >= policy.minIterations) }
  }

  private func enough(_ tile: TileState, _ quality: Double) -> Bool {
    guard let wanted = policy.minQuality else { return false }
    return tile.iteration >= policy.minIterations && quality >= wanted
  }

  private mutating func finish(_ index: Int, _ why: Stop) {
    tiles[index].done = why
    last = why
    tiles[index].original = false
    tiles[index].estimate = false
    open.remove(index)
    held.remove(index)
  }

  /// Give up features of the tiles with the least to gain; an estimate goes before the original.
  private mutating func makeRoom(working: Int) {
    if tiles[working].original || tiles[working].estimate { held.insert(working) }
    while held.count > 1, held.reduce(0, { $0 + weight($1) }) > keep {
      let others = held.subtracting([working])
      guard let index = others.min(by: { (tiles[$0].gain, -$0) < (tiles[$1].gain, -$1) }) else { return }
      if !(tiles[index].estimate && tiles[index].iteration > 0) { tiles[index].original = false }
      tiles[index].estimate = false
      if !tiles[index].original { held.remove(index) }
    }
  }

  /// Before its first iteration a tile's estimate is its original.
  private func weight(_ index: Int) -> Int {
    let tile = tiles[index]
    return (tile.original ? 1 : 0) + (tile.estimate && tile.iteration > 0 ? 1 : 0)
  }
}
