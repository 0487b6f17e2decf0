import Foundation

/// One expert's name and weight in [0, 1].
public struct Gate: Equatable, Sendable {
  public let expert: String
  public let weight: Double
}

/// Whose tokens a refine of a tile asks.
public enum TokenSource: String, Sendable {
  case own, look, mean
}

/// What the assessment of a picture as it came promises of its restoration.
public struct Prospect: Equatable, Sendable {
  /// In the likeliest degradation.
  public let belief: Double
  /// Share of a restoration's mean squared error that differs from view to view.
  public let variance: Double
  /// It is not to be turned upside down.
  public let upright: Bool
}

/// Logistic function, without overflow; 0 for NaN: what a broken assessment says is not believed.
public func sigmoid(_ x: Double) -> Double {
  if x.isNaN { return 0 }
  return x >= 0 ? 1 / (1 + exp(-x)) : exp(x) / (1 + exp(x))
}

/// The degradation tree and the constants of routing, as bundle.json holds them; from an assessment to the experts' gates.
///
/// Leaves are independent. Confidence splits each belief between leaf and parent (UniRestorer, section 3.3); all but the
/// `top` largest gates become 0 (UIR-LoRA, equation 5). Of many tiles, the leaves in `whole` are judged by a look at the whole
/// picture, so that neighbours agree, and left where it is in doubt; of those in `uneven` tiles are asked too.
public struct Routing: Equatable, Sendable {
  public struct Branch: Equatable, Sendable {
    public let parent: String
    public let leaves: [String]
  }

  public let tree: [Branch]
  /// τ: granularity (log-variance) at which leaf and parent share equally.
  public let threshold: Double
  public let softness: Double
  /// K: gates kept.
  public let top: Int
  public let whole: [String]
  /// Logit of a look at the whole picture above which it is believed, by leaf; 1 of others.
  public let likely: [String: Double]
  public let uneven: [String]
  /// Where the first look finds one of these leaves likely, tiles take its tokens.
  public let lookTokens: [String]
  /// Otherwise, where it finds one of these likelier than not, tiles take the mean of their tokens.
  public let meanTokens: [String]
  /// Leaves with a refiner of their own, for pictures that have nothing else.
  public let specialists: Set<String>
  /// Share of a restoration's mean squared error that differs from view to view, by leaf; `unknownVariance` of others.
  public let variance: [String: Double]
  /// Belief above which a leaf's specialist is asked, by leaf; 0.5 of others.
  public let certain: [String: Double]

  /// Reads bundle.json's `routing`. Throws `RestoreError.bundle`.
  public init(_ json: JSON) throws {
    func take<Value>(_ key: String, _ standard: Value, _ read: (JSON) -> Value?) throws -> Value {
      guard let value = json[key] else { return standard }
      guard let result = read(value) else { throw RestoreError.bundle("routing.\(key) is \(value.text.prefix(60))") }
      return result
    }
    tree = try take("tree", []) { value in
      value.asObject?.map { Branch(parent: $0.key, leaves: $0.value.asStrings ?? []) }
    }
    threshold = try take("threshold", -3.0, \.asDouble)
    softness = try take("softness", 0.7, \.asDouble)
    top = try take("top", 4, \.asInt)
    whole = try take("whole", ["haze", "low_light"], \.asStrings)
    likely = try take("likely", [:], Self.numbers)
    uneven = try take("uneven", ["low_light"], \.asStrings)
    lookTokens = try take("look_tokens", [], \.asStrings)
    meanTokens = try take("mean_tokens", [], \.asStrings)
    specialists = Set(try take("specialists", [], \.asStrings))
    certain = try take("certain", [:], Self.numbers)
    variance = try take("variance", [:], Self.numbers)
    let names = tree.map(\.parent) + tree.flatMap(\.leaves)
    guard !tree.isEmpty, tree.allSatisfy({ !$0.leaves.isEmpty }), Set(names).count == names.count else {
      throw RestoreError.bundle("routing.tree needs different names, and leaves under every parent")
    }
    guard certain.values.allSatisfy({ $0 > 0 && $0 < 1 }) else {
      throw RestoreError.bundle("routing.certain needs numbers between 0 and 1")
    }
    guard softness > 0, top > 0 else { throw RestoreError.bundle("routing's softness and top must be above 0") }
  }

  /// Names with a number each; nil where a value is none.
  private static func numbers(_ value: JSON) -> [String: Double]? {
    guard let entries = value.asObject else { return nil }
    let named = entries.compactMap { entry in entry.value.asDouble.map { (entry.key, $0) } }
    return named.count == entries.count ? Dictionary(named) { first, _ in first } : nil
  }

  /// A logit above which what is said of a whole picture is believed (a belief of 0.73).
  private static let believed = 1.0

  private func leastLikely(_ leaf: String) -> Double { likely[leaf, default: Self.believed] }

  public var leaves: [String] { tree.flatMap(\.leaves) }

  /// Parents, then leaves: the order of the stacked ranks.
  public var experts: [String] { tree.map(\.parent) + leaves }

  /// Gates of every expert, from an assessment's granularity and degradation logits (one a leaf).
  public func gates(granularity: Double, logits: [Double]) -> [Gate] {
    let confidence = sigmoid((threshold - granularity) / softness)
    let beliefs = logits.map(sigmoid)
    var weights: [Double] = []
    var first = 0
    for branch in tree {
      let own = beliefs[first..<first + branch.leaves.count]
      weights.append((1 - confidence) * (own.max() ?? 0))
      first += branch.leaves.count
    }
    weights += beliefs.map { confidence * $0 }
    // Ties go to the expert that comes first, so that every language keeps the same ones.
    let order = weights.indices.sorted { (-weights[$0], $0) < (-weights[$1], $1) }
    let kept = Set(order.prefix(top))
    return zip(experts, weights.indices).map { Gate(expert: $0, weight: kept.contains($1) ? weights[$1] : 0) }
  }

  /// A tile's degradation logits: of the leaves in `whole` its look's, if it says anything, and −∞ where that is not likely. Of
  /// those in `uneven` the larger of both, and where the look's is not likely their sum, as of independent evidence, or −∞ where
  /// that is not above `believed`: a gate that is half open does harm.
  ///
  /// `looks`: all up to the one that the tile goes by, the last; none for a picture of one tile. What the first one found unlikely
  /// no later one finds, but for leaves in `uneven`: restoring adds no degradation.
  public func agreedLogits(looks: [[Double]], tile: [Double]) -> [Double] {
    guard let first = looks.first, let look = looks.last else { return tile }
    return leaves.indices.map {
      let (seen, own) = (look[$0], tile[$0])
      guard whole.contains(leaves[$0]), !seen.isNaN else { return own }
      guard uneven.contains(leaves[$0]), !own.isNaN else {
        return seen > leastLikely(leaves[$0]) && !(first[$0] <= 0) ? seen : -.infinity
      }
      if seen > leastLikely(leaves[$0]) { return max(seen, own) }
      return seen + own > Self.believed ? seen + own : -.infinity
    }
  }

  /// Whose tokens tiles take after a first look with these degradation logits: the look's where it finds a leaf in `lookTokens`
  /// likely, else the mean of all tiles' where one in `meanTokens` is likelier than not, else each its own.
  public func tokenSource(_ look: [Double]) -> TokenSource {
    let told = Array(zip(leaves, look))
    if told.contains(where: { lookTokens.contains($0) && $1 > leastLikely($0) }) { return .look }
    return told.contains { meanTokens.contains($0) && $1 > 0 } ? .mean : .own
  }

  /// The method that refines what no specialist does.
  static let refine = "refine"

  /// The method of a leaf's specialist, which takes and gives what `refine` does.
  static func specialist(_ leaf: String) -> String { "\(refine)_\(leaf)" }

  /// The method that refines a tile: the specialist's of the likeliest leaf where no other is believed above 0.5, else `refine`.
  ///
  /// A specialist is asked above a belief of 0.5, or what `certain` says of its leaf; of equal beliefs the leaf that comes first is
  /// the likeliest. `beliefs`: in leaves of the picture as it came, or every expert's gate as a caller stated it.
  public func refiner(_ beliefs: [Gate]) -> String {
    let leaves = Set(leaves)
    let found = beliefs.filter { leaves.contains($0.expert) }
    guard let likeliest = found.max(by: { $0.weight < $1.weight }), specialists.contains(likeliest.expert) else {
      return Self.refine
    }
    let alone = found.filter { $0.weight > 0.5 }.count <= 1
    let asked = likeliest.weight > certain[likeliest.expert, default: 0.5]
    return alone && asked ? Self.specialist(likeliest.expert) : Self.refine
  }

  static let unknownVariance = 0.1

  /// From beliefs in leaves and every expert's gate, which a caller may have stated: a leaf is believed as far as the larger of
  /// both. A picture stays upright where a leaf in `whole`, which light from above gives away, is believed above 0.5; its variance
  /// is the mean of its leaves', weighted by belief.
  public func prospect(degradations: [Gate], gates: [Gate]) -> Prospect {
    let beliefs = zip(degradations, gates.suffix(degradations.count)).map { belief, gate in
      Gate(expert: belief.expert, weight: max(belief.weight, gate.weight))
    }
    let total = beliefs.reduce(0) { $0 + $1.weight }
    let weighted = beliefs.reduce(0) { $0 + $1.weight * variance[$1.expert, default: Self.unknownVariance] }
    return Prospect(
      belief: (beliefs + gates).map(\.weight).max() ?? 0,
      variance: total > 0 ? weighted / total : 0,
      upright: beliefs.contains { whole.contains($0.expert) && $0.weight > 0.5 })
  }

  /// Gates a caller states himself: expert → weight in [0, 1]; the others are 0. Throws `RestoreError.input`.
  public func gates(given: [String: Double]) throws -> [Gate] {
    for (name, weight) in given {
      guard experts.contains(name) else {
        let known = experts.joined(separator: ", ")
        throw RestoreError.input("unknown degradation \(name); expected one of \(known)")
      }
      guard (0...1).contains(weight) else {
        throw RestoreError.input("weight of \(name) is \(weight); expected a number from 0 to 1")
      }
    }
    return experts.map { Gate(expert: $0, weight: given[$0] ?? 0) }
  }

  /// What `refine` takes, (1, experts · rank, 1, 1): every gate repeated over its expert's rank.
  public static func tensor(_ gates: [Gate], rank: Int) -> [Float] {
    gates.flatMap { Array(repeating: Float($0.weight), count: rank) }
  }
}
