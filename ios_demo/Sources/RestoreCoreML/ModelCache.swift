#if canImport(CoreML)
  import CoreML
  import Foundation
  import RestoreCore

  /// Compiled models, kept between launches: compiling takes seconds, and belongs to the model and to the system's version.
  struct ModelCache: Sendable {
    let folder: URL

    /// In the app's caches, which the system may empty.
    static func standard() -> ModelCache {
      let caches = FileManager.default.urls(for: .cachesDirectory, in: .userDomainMask)[0]
      return ModelCache(folder: caches.appendingPathComponent("CompiledModels", isDirectory: true))
    }

    /// The compiled model of a package, compiled now where it is not there yet. Throws `RestoreError.program`.
    func compiled(_ package: URL) async throws -> URL {
      let place = try place(of: package)
      if FileManager.default.fileExists(atPath: place.path) { return place }
      do {
        let compiled = try await MLModel.compileModel(at: package)
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        // Renamed whole: a killed app leaves no half of a model.
        _ = try FileManager.default.replaceItemAt(place, withItemAt: compiled)
      } catch {
        let name = package.lastPathComponent
        throw RestoreError.program("\(name) cannot be compiled (\(error.localizedDescription)); is it for a newer iOS?")
      }
      return place
    }

    /// Forgets a package's compiled model.
    func remove(_ package: URL) throws { try? FileManager.default.removeItem(at: place(of: package)) }

    private func place(of package: URL) throws -> URL {
      // The manifest holds the hashes of the model and its weights.
      guard let manifest = try? Data(contentsOf: package.appendingPathComponent("Manifest.json")) else {
        throw RestoreError.program("\(package.lastPathComponent) is no Core ML package; export the bundle again")
      }
      let system = ProcessInfo.processInfo.operatingSystemVersionString
      return folder.appendingPathComponent(SHA256.hex(manifest + Data(system.utf8)) + ".mlmodelc", isDirectory: true)
    }
  }
#endif
