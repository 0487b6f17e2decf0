/// What went wrong, in one line that a person understands: what was found, and what to do.
public enum RestoreError: Error, Equatable, Sendable, CustomStringConvertible {
  /// A bundle that is damaged, of another format, or lacks what was asked for.
  case bundle(String)
  /// A picture, a setting or a file that cannot be used.
  case input(String)
  /// A program that cannot be loaded or failed while it ran.
  case program(String)

  public var description: String {
    switch self {
    case .bundle(let text), .input(let text), .program(let text): text
    }
  }
}
