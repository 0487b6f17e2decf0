#if canImport(CoreML)
  import CoreML
  import Foundation
  import RestoreCore
  import os

  /// Loads Core ML programs of a bundle: student.mlpackage with two functions (iOS 18), or encode and refine (iOS 17).
  public struct CoreMLLoader: Loader {
    static let package = "student.mlpackage"
    public let units: ComputeUnits
    private let cache = ModelCache.standard()

    public init(units: ComputeUnits) { self.units = units }

    public var runner: String {
      let system = ProcessInfo.processInfo.operatingSystemVersion
      return "Core ML of \(system.majorVersion).\(system.minorVersion).\(system.patchVersion), \(units.rawValue)"
    }

    public func load(_ folder: URL, cold: Bool) async throws -> any Session { try await session(folder, cold: cold) }

    /// `cold`: compiled again. Throws `RestoreError.program`.
    public func session(_ folder: URL, cold: Bool = false) async throws -> CoreMLSession {
      let began = ContinuousClock.now
      if cold { try forget(folder) }
      let encode = try await method("encode", folder)
      let refine = try await method("refine", folder)
      return try CoreMLSession(encode: encode, refine: refine, loadMs: began.duration(to: .now).milliseconds)
    }

    /// Whether this system can load a program that is packed in this way.
    public static func canLoad(_ program: Program) -> Bool {
      guard program.files.contains(where: { $0.path.contains("/\(package)/") }) else { return true }
      if #available(iOS 18, macOS 15, *) { return true }
      return false
    }

    private func forget(_ folder: URL) throws {
      let items = try FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)
      for package in items where package.pathExtension == "mlpackage" { try cache.remove(package) }
    }

    private func method(_ name: String, _ folder: URL) async throws -> CoreMLSession.Method {
      let configuration = MLModelConfiguration()
      configuration.computeUnits = units.asCoreML
      let both = folder.appendingPathComponent(Self.package)
      let alone = folder.appendingPathComponent("\(name).mlpackage")
      let package: URL
      if FileManager.default.fileExists(atPath: both.path) {
        guard #available(iOS 18, macOS 15, *) else {
          throw RestoreError.program("this program needs iOS 18; export coreml-ios17 for older phones")
        }
        configuration.functionName = name
        package = both
      } else if FileManager.default.fileExists(atPath: alone.path) {
        package = alone
      } else {
        throw RestoreError.bundle("the program has neither \(Self.package) nor \(name).mlpackage; export the bundle again")
      }
      let compiled = try await cache.compiled(package)
      do {
        let model = try await MLModel.load(contentsOf: compiled, configuration: configuration)
        return .init(name: name, model: model, compiled: compiled, configuration: configuration)
      } catch {
        // A compiled model that does not load is of no use to the next launch.
        try cache.remove(package)
        throw RestoreError.program("\(name) cannot be loaded (\(error.localizedDescription)); try other compute units")
      }
    }

    public var memoryInUse: Int { ProcessMemory.inUse }
  }

  /// Bytes of this process as the system counts them when it decides whom to end.
  public enum ProcessMemory {
    // Not `mach_task_self_`: to Swift 6 a variable of C is shared state. Asked for once, as each call counts one more use.
    private static let task = task_self_trap()

    public static var inUse: Int {
      var facts = task_vm_info_data_t()
      var count = mach_msg_type_number_t(MemoryLayout<task_vm_info_data_t>.size / MemoryLayout<natural_t>.size)
      let status = withUnsafeMutablePointer(to: &facts) { facts in
        facts.withMemoryRebound(to: integer_t.self, capacity: Int(count)) {
          task_info(task, task_flavor_t(TASK_VM_INFO), $0, &count)
        }
      }
      return status == KERN_SUCCESS ? Int(facts.phys_footprint) : 0
    }

    #if os(iOS)
      /// What this process may still take before the system ends it; nil in the Simulator, which sets no limit.
      public static var free: Int? {
        let bytes = os_proc_available_memory()
        return bytes > 0 ? bytes : nil
      }
    #endif
  }
#endif
