/// Mean and mean absolute deviation of a duration in milliseconds (RFC 6298); a mean of 0 knows nothing and predicts 0.
///
/// One duration outside the expected range counts only up to its edge; a second one in a row, on the same side, is the new
/// pace of the machine. The rules are in docs/conformance.md.
public struct Estimate: Equatable, Sendable {
  static let weight = 0.25
  static let deviations = 3.0
  static let leastDeviation = 0.03
  static let firstDeviation = 0.1
  /// By how much an estimate that let nothing begin shrinks.
  static let doubt = 0.9

  public private(set) var mean: Double
  public private(set) var deviation: Double
  private var outlier: Double?
  /// The shortest duration, 0 before any.
  public private(set) var least = 0.0

  public init(mean: Double = 0, deviation: Double = 0) {
    self.mean = mean
    self.deviation = deviation
  }

  /// How far from the mean a duration is expected.
  public var margin: Double { Self.deviations * max(deviation, Self.leastDeviation * mean) }

  /// The prediction: rarely exceeded while the pace lasts.
  public var upper: Double { mean + margin }

  /// One more duration.
  public mutating func observe(_ value: Double) {
    least = least == 0 ? value : min(least, value)
    guard mean != 0 else {
      mean = value
      deviation = Self.firstDeviation * value
      return
    }
    var error = value - mean
    let before = outlier
    outlier = nil
    if abs(error) > margin {
      if let before, (before > mean) == (error > 0) {
        let pace = (value + before) / 2
        mean = pace
        deviation = max(abs(value - before) / 2, Self.firstDeviation * pace)
        return
      }
      outlier = value
      error = error < 0 ? -margin : margin
    }
    mean += Self.weight * error
    deviation += Self.weight * (abs(error) - deviation)
  }

  /// It let nothing begin, and so could not be corrected: it may be of a pace that is over.
  mutating func doubt() {
    mean = max(least, Self.doubt * mean)
    deviation *= Self.doubt
    outlier = nil
  }
}

/// Estimates of both methods for one tile on this machine.
public struct CostModel: Equatable, Sendable {
  public var encode: Estimate
  public var refine: Estimate

  public init(encode: Estimate = Estimate(), refine: Estimate = Estimate()) {
    self.encode = encode
    self.refine = refine
  }

  /// No step could begin within a budget; doubted where both methods once took no longer together.
  mutating func refused(budgetMs: Double) {
    guard budgetMs >= encode.least + refine.least else { return }
    encode.doubt()
    refine.doubt()
  }
}
