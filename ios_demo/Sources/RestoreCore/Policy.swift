/// What the caller wants: a deadline, a quality, a number of iterations; nil means no such limit.
public struct Policy: Equatable, Sendable {
  /// Milliseconds from the call to the result.
  public var budgetMs: Double?
  /// Stop when predicted quality, in [0, 1], reaches this.
  public var minQuality: Double?
  /// Of every tile; wins over `minIterations`.
  public var maxIterations = 4
  /// Of every tile, whatever the budget and the quality say.
  public var minIterations = 0
  /// An iteration that is expected to gain no more quality is not begun.
  public var minGain = 0.001
  /// Stop at a predicted loss and keep the picture before it.
  public var rollback = true

  public init() {}

  /// As bundles, jobs and conformance cases write it. Throws `RestoreError.input`.
  public init(_ json: JSON) throws {
    guard let entries = json.asObject else { throw RestoreError.input("the policy is no object") }
    for (key, value) in entries {
      var fits = true
      switch key {
      case "budget_ms": (budgetMs, fits) = (value.asDouble, value == .null || value.asDouble != nil)
      case "min_quality": (minQuality, fits) = (value.asDouble, value == .null || value.asDouble != nil)
      case "max_iterations": (maxIterations, fits) = (value.asInt ?? 0, value.asInt != nil)
      case "min_iterations": (minIterations, fits) = (value.asInt ?? 0, value.asInt != nil)
      case "min_gain": (minGain, fits) = (value.asDouble ?? 0, value.asDouble != nil)
      case "rollback": (rollback, fits) = (value.asBool ?? true, value.asBool != nil)
      default: throw RestoreError.input("unknown setting \(key)")
      }
      guard fits else { throw RestoreError.input("\(key) is \(value.text)") }
    }
    try check()
  }

  /// Throws `RestoreError.input` for a value outside its range.
  public func check() throws {
    if let budgetMs, !(budgetMs >= 0 && budgetMs.isFinite) {
      throw RestoreError.input("budget is \(budgetMs) ms; expected 0 or more")
    }
    if let minQuality, !(0...1).contains(minQuality) {
      throw RestoreError.input("wanted quality is \(minQuality); expected a number from 0 to 1")
    }
    guard maxIterations >= 0, minIterations >= 0, minGain.isFinite else {
      throw RestoreError.input("iterations are \(minIterations) to \(maxIterations); expected 0 or more")
    }
  }
}
