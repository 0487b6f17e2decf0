/// One restoration: carries out what the controller says, tile by tile, and keeps the picture whole after each step.
actor Run {
  /// A result this much darker than what it came from is broken, unless that was nearly black itself.
  private static let darker = 0.02
  private static let nearlyBlack = 4.0 / 255
  /// What is kept free before the deadline for waking up and handing over.
  private static let reserveMs = 0.5

  /// What an encode said of a tile, for the refine that follows, and the method that this is to be.
  private struct Seen {
    let gates: [Gate]
    let degradations: [Gate]
    let method: String
  }

  private let engine: Engine
  private let picture: Pixels
  private let fixed: [Gate]?
  private let keepRounds: Bool
  private let began: ContinuousClock.Instant
  private let plan: TilePlan
  private var controller: Controller
  private var rounds: Rounds
  private var originals: [Int: Encoded] = [:]
  private var estimates: [Int: Encoded] = [:]
  /// Degradation logits of every round's look: a tile goes by its own round's, since a later one sees others further.
  private var looks: [[Double]] = []
  /// What a tile does not see of the picture it is of: tokens of the first look or, once a tile is refined, the mean of those that
  /// were encoded before; nil where each asks its own.
  private var tokens: [Float]?
  /// Of tiles that are encoded before the first is refined, where the mean is to be asked.
  private var survey: [(area: Double, tokens: [Float])] = []
  /// What the next iteration starts from, with the quality that was predicted of it, and what the picture shows; they differ after
  /// a forced regression.
  private var current: [Pixels]
  private var predicted: [Double]
  private var kept: [Pixels]
  private var canvas: Pixels
  private var planes: (tile: Int, planes: Planes)?
  private var seen: [Int: Seen] = [:]
  private var trace: [Event] = []
  /// Any step was.
  private var tried = false
  private var shown: [Pixels]

  init(
    engine: Engine, cost: CostModel, picture: Pixels, policy: Policy, fixed: [Gate]?, keepRounds: Bool,
    began: ContinuousClock.Instant
  ) {
    let settings = engine.settings
    self.engine = engine
    self.picture = picture
    self.fixed = fixed
    self.keepRounds = keepRounds
    self.began = began
    let plan = TilePlan(height: picture.height, width: picture.width, tile: settings.tile)
    let areas = plan.areas
    self.plan = plan
    controller = Controller(
      policy: policy, cost: cost, areas: areas, looks: plan.count > 1, keep: settings.keep)
    rounds = Rounds(areas: areas)
    current = (0..<plan.count).map { picture.crop(plan.region($0)) }
    predicted = current.map { _ in 0 }
    kept = current
    canvas = picture
    shown = keepRounds ? [picture] : []
  }

  /// Ends the restoration after the step that is running; the best so far stands.
  func cancel() { controller.cancel() }

  /// Carries out steps up to the next refine; the picture as it is then. Nil when the controller stops.
  func next() async throws -> Update? {
    while true {
      do {
        switch controller.choose(elapsedMs: elapsed) {
        case .stop:
          if let budget = controller.policy.budgetMs, controller.reason == .budget, !tried {
            await engine.refused(budgetMs: budget)
          }
          return nil
        case .look(let index): try await takeALook(index)
        case .encode(let index): try await encode(index)
        case .mirror(let index): try await mirror(index)
        case .recall(let index): try await recall(index)
        case .refine(let index): return try await refine(index)
        }
      } catch is Late {
        controller.late()
      } catch is CancellationError {
        controller.cancel()
      } catch let error as RestoreError {
        throw error
      } catch {
        throw RestoreError.program("\(engine.settings.program) failed (\(error)); try other compute units or another program")
      }
    }
  }

  /// The restoration as far as it got.
  var result: Restoration {
    Restoration(
      picture: canvas, iteration: controller.bestIteration, quality: controller.quality,
      reason: controller.reason ?? .cancelled, elapsedMs: elapsed, tiles: plan.count,
      steps: rounds.rows(quality: controller.quality), trace: trace,
      rounds: keepRounds && rounds.isOpen ? shown + [canvas] : shown)
  }

  private var elapsed: Double { began.duration(to: .now).milliseconds }

  private func call<Value: Sendable>(
    _ index: Int, _ method: WritableKeyPath<CostModel, Estimate> & Sendable,
    _ work: @escaping @Sendable (any Session) async throws -> Value
  ) async throws -> Value {
    tried = true
    var deadline: ContinuousClock.Instant?
    if let budget = controller.policy.budgetMs, controller.tiles[index].iteration >= controller.policy.minIterations {
      deadline = began.advanced(by: .milliseconds(max(0, budget - Self.reserveMs)))
    }
    return try await engine.call(method, deadline: deadline, work)
  }

  private func takeALook(_ index: Int) async throws {
    let (canvas, tile, before) = (canvas, engine.settings.tile, elapsed)
    let encoded = try await call(index, \.encode) { session in
      try await session.encode(Planes(Look.shrink(canvas, tile: tile), side: tile))
    }
    try check(encoded)
    let source = looks.isEmpty ? engine.settings.routing.tokenSource(encoded.logits) : .own
    if source == .look { tokens = encoded.tokens }
    looks.append(encoded.logits)
    let ms = elapsed - before
    controller.looked(ms: ms, survey: source == .mean)
    record(.look, 0, controller.roundsLookedAt - 1, ms)
  }

  private func encode(_ index: Int) async throws {
    let (encoded, planes, ms) = try await encoded(index, current[index])
    let tile = controller.tiles[index]
    if controller.surveys && tokens == nil && tile.quality == nil { survey.append((tile.area, encoded.tokens)) }
    let (iteration, seen) = (tile.iteration, see(index, encoded, planes))
    if iteration == 0 { originals[index] = encoded }
    let (quality, beliefs) = (calibrated(encoded.quality), seen.degradations)
    let prospect = engine.settings.routing.prospect(degradations: beliefs, gates: seen.gates)
    controller.encoded(index, quality: quality, prospect: prospect, ms: ms)
    record(.encode, index, iteration, ms, quality, prospect: prospect)
    if iteration == 0 {
      rounds.started(index, quality: quality, degradations: beliefs)
      ended(index)
    }
    forget()
  }

  private func mirror(_ index: Int) async throws {
    let view = controller.tiles[index].view
    let (encoded, planes, ms) = try await encoded(index, original(index), view: view)
    _ = see(index, encoded, planes)
    controller.mirrored(index, ms: ms)
    record(.mirror, index, view, ms)
    forget()
  }

  /// Routes a tile by what was said of it.
  private func see(_ index: Int, _ encoded: Encoded, _ planes: Planes) -> Seen {
    let (routing, looked) = (engine.settings.routing, Array(looks.prefix(controller.tiles[index].looks)))
    let logits = routing.agreedLogits(looks: looked, tile: encoded.logits)
    let gates = fixed ?? routing.gates(granularity: encoded.granularity, logits: logits)
    let beliefs = zip(routing.leaves, logits).map { Gate(expert: $0, weight: sigmoid($1)) }
    // What a restoration left is not what a specialist learnt from, so that it takes views of the picture as it came alone.
    let tile = controller.tiles[index]
    let method = tile.view == tile.iteration ? routing.refiner(fixed ?? beliefs) : Routing.refine
    let seen = Seen(gates: gates, degradations: beliefs, method: method)
    self.seen[index] = seen
    estimates[index] = encoded
    self.planes = (index, planes)
    return seen
  }

  private func original(_ index: Int) -> Pixels { picture.crop(plan.region(index)) }

  private func recall(_ index: Int) async throws {
    let (encoded, _, ms) = try await encoded(index, original(index))
    originals[index] = encoded
    controller.recalled(index, ms: ms)
    record(.recall, index, controller.tiles[index].iteration, ms)
    forget()
  }

  private func encoded(_ index: Int, _ pixels: Pixels, view: Int = 0) async throws -> (Encoded, Planes, ms: Double) {
    let (tile, before) = (engine.settings.tile, elapsed)
    let (encoded, planes) = try await call(index, \.encode) { session in
      let planes = Self.source(pixels, side: tile, view: view)
      return (try await session.encode(planes), planes)
    }
    try check(encoded)
    return (encoded, planes, elapsed - before)
  }

  private func refine(_ index: Int) async throws -> Update {
    let (tile, before, pixels, expected) = (engine.settings.tile, elapsed, current[index], predicted[index])
    let view = controller.tiles[index].view
    guard let seen = seen[index], let estimate = estimates[index], let evidence = view > 0 ? estimate : originals[index] else {
      preconditionFailure("the controller refines tiles that were encoded")
    }
    let came = view > 0 ? original(index) : pixels
    if tokens == nil && !survey.isEmpty { tokens = Self.meanTokens(survey) }
    let (asked, calibration) = (tokens ?? estimate.tokens, engine.settings.calibration)
    let ready = planes?.tile == index ? planes?.planes : nil
    let gates = Routing.tensor(seen.gates, rank: engine.settings.rank)
    let (restored, quality, difference) = try await call(index, \.refine) { session -> (Pixels?, Double, Double) in
      let source = ready ?? Self.source(came, side: tile, view: view)
      let refined = try await session.refine(
        source, original: evidence, estimate: estimate, tokens: asked, gates: gates, method: seen.method)
      // A program that predicts no number is as broken as one that gives no picture.
      if refined.quality.isNaN || Self.broken(refined.restored, source) { return (nil, .nan, 0) }
      var (planes, quality, difference) = (refined.restored, calibration.apply(refined.quality), 0.0)
      if view > 0 {
        let mean = Planes(pixels, side: tile).mean(of: view, joinedBy: planes.mirrored(view: view))
        (planes, difference) = mean
        quality = Quality.ofMean(expected, count: view, joinedBy: quality, difference: difference)
      }
      return (planes.pixels(height: pixels.height, width: pixels.width), quality, difference)
    }
    planes = nil
    let improved = controller.keeps(index, quality: quality)
    if let restored {
      (current[index], predicted[index]) = (restored, quality)
      if improved { show(index, restored) }
    }
    // What it costs is known only now: showing the result belongs to the step.
    let ms = elapsed - before
    controller.refined(index, quality: quality, ms: ms, difference: difference)
    record(.refine, index, controller.tiles[index].iteration, ms, quality, difference: difference)
    rounds.refined(index, gates: seen.gates, degradations: seen.degradations)
    ended(index)
    forget()
    return Update(
      iteration: controller.tiles[index].iteration, tile: index, improved: improved, region: plan.region(index),
      quality: controller.quality, elapsedMs: elapsed, done: rounds.begun, tiles: plan.count, picture: canvas)
  }

  /// Puts a tile's result into the picture, blended with its neighbours'.
  private func show(_ index: Int, _ pixels: Pixels) {
    kept[index] = pixels
    if plan.count == 1 {
      canvas = pixels
    } else {
      let region = plan.region(index)
      canvas.put(plan.blend(kept, region: region), at: region)
    }
  }

  private func record(
    _ ran: Event.Kind, _ tile: Int, _ iteration: Int, _ ms: Double, _ quality: Double? = nil, prospect: Prospect? = nil,
    difference: Double = 0
  ) {
    let event = Event(
      ran: ran, tile: tile, iteration: iteration, costMs: ms, elapsedMs: elapsed, quality: quality, prospect: prospect,
      difference: difference)
    trace.append(event)
    rounds.spent(ms, elapsedMs: event.elapsedMs, first: (ran == .look || ran == .encode) && iteration == 0)
  }

  /// A tile may have been the last of its round.
  private func ended(_ index: Int) {
    let tile = controller.tiles[index]
    let over = rounds.reached(
      index, iteration: tile.iteration, isDone: tile.done != nil, quality: controller.quality)
    if over && keepRounds { shown.append(canvas) }
  }

  private func calibrated(_ quality: Double) -> Double {
    quality.isNaN ? quality : engine.settings.calibration.apply(quality)
  }

  private func check(_ encoded: Encoded) throws {
    let leaves = engine.settings.routing.leaves.count
    guard encoded.logits.count == leaves else {
      throw RestoreError.program(
        "\(engine.settings.program) names \(encoded.logits.count) degradations, bundle.json \(leaves); export the bundle again")
    }
  }

  /// Let go of the features that the controller gave up.
  private func forget() {
    originals = originals.filter { controller.tiles[$0.key].original }
    estimates = estimates.filter { controller.tiles[$0.key].estimate }
  }

  /// What an iteration of a tile starts from, as the program takes it; `view` is 0 where that is no mirror image.
  private static func source(_ pixels: Pixels, side: Int, view: Int) -> Planes {
    let planes = Planes(pixels, side: side)
    return view > 0 ? planes.mirrored(view: view) : planes
  }

  /// Mean of tiles' tokens by their shares of the picture.
  static func meanTokens(_ survey: [(area: Double, tokens: [Float])]) -> [Float] {
    var sums = survey[0].tokens.map { _ in 0.0 }
    for (area, tokens) in survey {
      for (index, token) in zip(sums.indices, tokens) { sums[index] += area * Double(token) }
    }
    let total = survey.reduce(0) { $0 + $1.area }
    return sums.map { Float($0 / total) }
  }

  /// NaN, infinite, or black where the source was not.
  private static func broken(_ restored: Planes, _ source: Planes) -> Bool {
    let (level, before) = (restored.mean, source.mean)
    return !level.isFinite || (before > nearlyBlack && level < darker * before)
  }
}
