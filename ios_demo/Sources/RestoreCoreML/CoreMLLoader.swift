#if canImport(CoreML)
  import CoreML
  import Foundation
  import RestoreCore
  import os

  /// Loads Core ML programs of a bundle: student.mlpackage with a function a method (iOS 18), or a package a method
  /// (iOS 17).
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
      let packages = try FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)
        .filter { $0.pathExtension == "mlpackage" }
      if cold { for package in packages { try cache.remove(package) } }
      var methods: [CoreMLSession.Method] = []
      for package in packages { methods += try await self.methods(package) }
      return try CoreMLSession(methods: methods, loadMs: began.duration(to: .now).milliseconds)
    }

    /// Whether this system can load a program that is packed in this way.
    public static func canLoad(_ program: Program) -> Bool {
      knowsFunctions || !program.files.contains { $0.path.contains("/\(package)/") }
    }

    /// Whether this system reads packages of several functions.
    private static var knowsFunctions: Bool {
      if #available(iOS 18, macOS 15, *) { return true }
      return false
    }

    /// Of student.mlpackage every function; of another package the method that it is named after.
    private func methods(_ package: URL) async throws -> [CoreMLSession.Method] {
      let isWhole = package.lastPathComponent == Self.package
      guard Self.knowsFunctions || !isWhole else {
        throw RestoreError.program("this program needs iOS 18; export coreml-ios17 for older phones")
      }
      let compiled = try await cache.compiled(package)
      do {
        guard isWhole, #available(iOS 18, macOS 15, *) else {
          let name = package.deletingPathExtension().lastPathComponent
          return [try await method(name, compiled, configuration)]
        }
        var methods: [CoreMLSession.Method] = []
        for name in try await MLModelAsset(url: compiled).functionNames {
          let configuration = configuration
          configuration.functionName = name
          methods.append(try await method(name, compiled, configuration))
        }
        return methods
      } catch {
        // A compiled model that does not load is of no use to the next launch.
        try cache.remove(package)
        let name = package.lastPathComponent
        throw RestoreError.program("\(name) cannot be loaded (\(error.localizedDescription)); try other compute units")
      }
    }

    /// A new one, on the compute units.
    private var configuration: MLModelConfiguration {
      let configuration = MLModelConfiguration()
      configuration.computeUnits = units.asCoreML
      return configuration
    }

    private func method(
      _ name: String, _ compiled: URL, _ configuration: MLModelConfiguration
    ) async throws -> CoreMLSession.Method {
      let model = try await MLModel.load(contentsOf: compiled, configuration: configuration)
      return .init(name: name, model: model, compiled: compiled, configuration: configuration)
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
