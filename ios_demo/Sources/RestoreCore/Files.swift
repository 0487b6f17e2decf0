import Foundation

/// Writing files so that a reader never finds half of one.
public enum Files {
  /// Throws `RestoreError.input`.
  public static func write(_ data: Data, to file: URL) throws {
    do {
      try data.write(to: file, options: .atomic)
    } catch {
      throw RestoreError.input("\(file.lastPathComponent) cannot be written (\(error.localizedDescription)); is the disk full?")
    }
  }
}
