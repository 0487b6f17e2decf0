import Foundation

/// What `encode` says of a picture.
public struct Encoded: Sendable {
  /// The session's own, opaque to everyone else.
  public let features: any Sendable
  /// The program's dictionary after it has attended to the picture, entry by entry.
  public let tokens: [Float]
  /// Assessed quality in [0, 1], not calibrated; granularity; a logit for every leaf of the degradation tree.
  public let quality: Double
  public let granularity: Double
  public let logits: [Double]

  /// `assessment`: quality before the sigmoid, granularity, logits. Throws `RestoreError.program`.
  public init(features: any Sendable, tokens: [Float], assessment: [Double]) throws {
    guard assessment.count > 2 else {
      throw RestoreError.program("the program's assessment has \(assessment.count) values; export the bundle again")
    }
    self.init(
      features: features, tokens: tokens, quality: 1 / (1 + exp(-assessment[0])), granularity: assessment[1],
      logits: Array(assessment[2...]))
  }

  public init(features: any Sendable, tokens: [Float], quality: Double, granularity: Double, logits: [Double]) {
    self.features = features
    self.tokens = tokens
    self.quality = quality
    self.granularity = granularity
    self.logits = logits
  }
}

/// What `refine` gives: a picture that is not clipped, and its predicted quality in [0, 1], not calibrated.
public struct Refined: Sendable {
  public let restored: Planes
  public let quality: Double

  public init(restored: Planes, quality: Double) {
    self.restored = restored
    self.quality = quality
  }
}

/// A loaded program. One call runs at a time; the restorer sees to that.
public protocol Session: Sendable {
  /// `image`: a picture of the program's tile.
  func encode(_ image: Planes) async throws -> Encoded
  /// `tokens`: those that are asked, an encode's or a mean of several. `gates`: every expert's weight, repeated over its rank.
  /// `method`: `refine`, or a specialist's.
  func refine(
    _ current: Planes, original: Encoded, estimate: Encoded, tokens: [Float], gates: [Float], method: String
  ) async throws -> Refined
}
