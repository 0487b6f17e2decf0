/// One call of the program.
public struct Event: Equatable, Sendable {
  public enum Kind: String, Sendable {
    case look, encode, mirror, recall, refine
  }

  public let ran: Kind
  public let tile: Int
  /// Of the tile; 0 before its first refine.
  public let iteration: Int
  public let costMs: Double
  public let elapsedMs: Double
  /// Assessed by an encode, predicted by a refine (NaN: broken and thrown away), nil where nothing was said.
  public let quality: Double?
  /// Of an encode.
  public let prospect: Prospect?
  /// Of a refine that restored a view, from the mean that it joined; 0 of others.
  public let difference: Double
}

/// The whole picture after a round of iterations; iteration 0 is the picture as it came.
///
/// Gates and degradations are means over the tiles that the round refined, as it saw them before.
public struct Step: Equatable, Sendable {
  public let iteration: Int
  public let quality: Double
  public let costMs: Double
  public let elapsedMs: Double
  public let gates: [Gate]
  public let degradations: [Gate]
}

/// The picture after one more refine.
public struct Update: Sendable {
  /// Of the tile.
  public let iteration: Int
  public let tile: Int
  public let improved: Bool
  /// What may have changed.
  public let region: Region
  /// Predicted, of the whole picture.
  public let quality: Double
  public let elapsedMs: Double
  /// Tiles that were refined or needed none, of `tiles`.
  public let done: Int
  public let tiles: Int
  /// The whole picture now.
  public let picture: Pixels
}

/// The result, and how it came about.
public struct Restoration: Sendable {
  public let picture: Pixels
  /// The highest iteration that a tile kept.
  public let iteration: Int
  /// Predicted, of the picture in [0, 1]; 0 where nothing was assessed.
  public let quality: Double
  public let reason: Stop
  public let elapsedMs: Double
  public let tiles: Int
  /// A row a round.
  public let steps: [Step]
  /// A row a call of the program.
  public let trace: [Event]
  /// The picture of every row of `steps`, when they were asked for.
  public let rounds: [Pixels]

  /// Whether the program gave a picture that was thrown away.
  public var wasBroken: Bool { trace.contains { $0.quality?.isNaN == true } }

  /// As a job's result.json has it; docs/devices.md explains every field.
  public func json(name: String) -> JSON {
    .object([
      ("name", .string(name)), ("iteration", .integer(iteration)), ("quality", .finite(quality)),
      ("reason", .string(reason.rawValue)), ("elapsed_ms", .number(elapsedMs)), ("tiles", .integer(tiles)),
      ("steps", .array(steps.map(\.json))), ("trace", .array(trace.map(\.json))),
    ])
  }
}

extension Step {
  var json: JSON {
    func table(_ gates: [Gate]) -> JSON { .object(gates.map { ($0.expert, .number($0.weight)) }) }
    return .object([
      ("iteration", .integer(iteration)), ("quality", .finite(quality)), ("cost_ms", .number(costMs)),
      ("elapsed_ms", .number(elapsedMs)), ("gates", table(gates)), ("degradations", table(degradations)),
    ])
  }
}

extension Event {
  var json: JSON {
    .object([
      ("ran", .string(ran.rawValue)), ("tile", .integer(tile)), ("iteration", .integer(iteration)),
      ("cost_ms", .number(costMs)), ("elapsed_ms", .number(elapsedMs)), ("quality", .finite(quality)),
      ("broken", .bool(quality?.isNaN == true)), ("prospect", prospect?.json ?? .null), ("difference", .number(difference)),
    ])
  }
}

extension Prospect {
  var json: JSON { .array([.number(belief), .number(variance), .bool(upright)]) }
}
