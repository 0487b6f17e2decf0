import Foundation

/// An opened bundle: the manifest was checked, files are checked when they are asked for.
///
/// Read defensively: sizes and hashes are checked, no path leaves the folder, links out of it included.
public struct RestoreBundle: Sendable {
  public static let manifestName = "bundle.json"
  static let mostManifestBytes = 1 << 20

  public let folder: URL
  public let manifest: Manifest

  /// Reads and checks the manifest. Throws `RestoreError.bundle`.
  public init(opening folder: URL) throws {
    let file = folder.appendingPathComponent(Self.manifestName)
    guard let size = Self.size(of: file) else {
      throw RestoreError.bundle(
        "\(folder.lastPathComponent) is no bundle: it has no bundle.json; expected what `burnish export` wrote")
    }
    guard size <= Self.mostManifestBytes else {
      throw RestoreError.bundle("bundle.json has \(size) bytes; expected at most \(Self.mostManifestBytes)")
    }
    do {
      self.init(folder: folder, manifest: try Manifest(JSON(parsing: Data(contentsOf: file))))
    } catch RestoreError.input(let text) {
      throw RestoreError.bundle("bundle.json is \(text); export the bundle again")
    } catch let error as RestoreError {
      throw error
    } catch {
      throw RestoreError.bundle("bundle.json cannot be read (\(error.localizedDescription))")
    }
  }

  private init(folder: URL, manifest: Manifest) {
    self.folder = folder
    self.manifest = manifest
  }

  /// The program called `name` (target-precision). Throws `RestoreError.bundle` listing what there is.
  public func program(_ name: String) throws -> Program {
    if let program = manifest.programs.first(where: { $0.name == name }) { return program }
    let there = manifest.programs.isEmpty ? "none" : manifest.programs.map(\.name).joined(separator: ", ")
    throw RestoreError.bundle("the bundle has no program \(name); it has: \(there)")
  }

  /// The programs of a target (and its variants, such as coreml-ios17), quantised ones first: phones are quickest with them.
  public func programs(of target: String) throws -> [Program] {
    let found = manifest.programs.filter { $0.target == target || $0.target.hasPrefix("\(target)-") }
    guard !found.isEmpty else {
      let there = manifest.programs.isEmpty ? "none" : manifest.programs.map(\.name).joined(separator: ", ")
      throw RestoreError.bundle("the bundle has no program for \(target), only \(there); export one with `burnish export`")
    }
    return found.filter { !$0.precision.hasPrefix("fp") } + found.filter { $0.precision.hasPrefix("fp") }
  }

  /// The path of a file whose size and hash are as the manifest says. Throws `RestoreError.bundle`.
  public func check(_ file: File) throws -> URL {
    let place = folder.appendingPathComponent(file.path)
    guard let root = Self.real(folder) else { throw RestoreError.bundle("\(folder.lastPathComponent) is gone") }
    guard let resolved = Self.real(place), let size = Self.size(of: place) else {
      throw RestoreError.bundle("\(file.path) is missing; export the bundle again")
    }
    guard resolved.hasPrefix(root + "/") else {
      throw RestoreError.bundle("\(file.path) leads out of the bundle; refuse it")
    }
    guard size == file.bytes, try Self.sha256(of: place) == file.sha256 else {
      throw RestoreError.bundle("\(file.path) is damaged: \(size) bytes, hash differs from bundle.json; copy it again")
    }
    return place
  }

  /// The folder of a program, all its files checked. Throws `RestoreError.bundle`.
  public func folder(of program: Program) throws -> URL {
    for file in program.files { _ = try check(file) }
    return folder.appendingPathComponent("programs").appendingPathComponent(program.name)
  }

  /// Bytes of a plain file; nil where there is none.
  static func size(of file: URL) -> Int? {
    let resolved = file.resolvingSymlinksInPath().path
    guard let facts = try? FileManager.default.attributesOfItem(atPath: resolved),
      facts[.type] as? FileAttributeType == .typeRegular
    else { return nil }
    return (facts[.size] as? NSNumber)?.intValue
  }

  /// A path without links; nil where nothing is.
  static func real(_ place: URL) -> String? {
    guard let resolved = realpath(place.path, nil) else { return nil }
    defer { free(resolved) }
    return String(cString: resolved)
  }

  /// SHA-256 of a file's bytes, read piece by piece.
  static func sha256(of file: URL) throws -> String {
    do {
      let handle = try FileHandle(forReadingFrom: file)
      defer { try? handle.close() }
      var hash = SHA256()
      while let piece = try handle.read(upToCount: 1 << 20), !piece.isEmpty { piece.withUnsafeBytes { hash.update($0) } }
      return hash.finish()
    } catch {
      throw RestoreError.bundle("\(file.lastPathComponent) cannot be read (\(error.localizedDescription))")
    }
  }
}
