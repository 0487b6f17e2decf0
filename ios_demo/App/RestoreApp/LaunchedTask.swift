import Foundation
import RestoreCore
import RestoreCoreML

/// What `xcrun devicectl device process launch` asks the app to do instead of waiting for a finger; then it exits.
///
/// Paths are below the app's own folder. Status 0: done; 1: failed, with the reason in one line on the console.
enum LaunchedTask {
  /// Which compute units, as in `BURNISH_COMPUTE_UNITS=cpuOnly`; all without.
  static let unitsVariable = "BURNISH_COMPUTE_UNITS"

  /// Whether there was something to start.
  static func startIfAsked(_ arguments: [String]) -> Bool {
    // devicectl may hand over the "--" that ends its own options.
    let asked = arguments.dropFirst().drop { $0 == "--" }
    guard let option = asked.first else { return false }
    let home = URL(fileURLWithPath: NSHomeDirectory(), isDirectory: true)
    let rest = Array(asked.dropFirst())
    let work: @Sendable () async throws -> Void
    switch (option, rest.count) {
    case ("--burnish-job", 2): work = { try await job(inside(home, rest[0]), out: inside(home, rest[1]), home: home) }
    case ("--burnish-remove", 1): work = { try remove(inside(home, rest[0])) }
    case ("--burnish-benchmark", 0...1): work = { try await benchmark(rest.first) }
    default: return false
    }
    Task.detached {
      do {
        try await work()
        exit(0)
      } catch {
        FileHandle.standardError.write(Data("error: \(error)\n".utf8))
        exit(1)
      }
    }
    return true
  }

  private static func job(_ folder: URL, out: URL, home: URL) async throws {
    let job = try Job(reading: folder, within: home)
    // A step that hangs must not outlive the job on a phone nobody watches.
    Task.detached {
      try await Task.sleep(for: .seconds(job.limitS))
      FileHandle.standardError.write(Data("error: the job took longer than \(job.limitS) s\n".utf8))
      exit(1)
    }
    try FileManager.default.createDirectory(at: out, withIntermediateDirectories: true)
    try await JobRunner(job: job, loader: CoreMLLoader(units: units)).run(into: out)
  }

  private static func benchmark(_ name: String?) async throws {
    let bundle = try Library.openFirst()
    let usable = try bundle.programs(of: "coreml").filter(CoreMLLoader.canLoad)
    guard let program = try name.map(bundle.program) ?? usable.first else {
      throw RestoreError.bundle("the bundle's Core ML programs need a newer iOS; export coreml-ios17")
    }
    let report = try await Measuring.measure(bundle, program, units) { _, _ in }
    print(report.file.path)
  }

  /// Only what jobs made is ever removed. Throws `RestoreError.input`.
  private static func remove(_ folder: URL) throws {
    guard folder.pathComponents.contains(where: { $0.hasPrefix("burnish-") }) else {
      throw RestoreError.input("\(folder.lastPathComponent) is no folder of a job")
    }
    if FileManager.default.fileExists(atPath: folder.path) { try FileManager.default.removeItem(at: folder) }
  }

  private static func inside(_ home: URL, _ path: String) throws -> URL {
    guard !path.hasPrefix("/"), !path.split(separator: "/").contains("..") else {
      throw RestoreError.input("\(path) leaves the app's folder")
    }
    return home.appendingPathComponent(path)
  }

  private static var units: ComputeUnits {
    get throws {
      guard let name = ProcessInfo.processInfo.environment[unitsVariable] else { return .all }
      guard let units = ComputeUnits(rawValue: name) else {
        let known = ComputeUnits.allCases.map(\.rawValue).joined(separator: ", ")
        throw RestoreError.input("\(unitsVariable) is \(name); expected one of \(known)")
      }
      return units
    }
  }
}
