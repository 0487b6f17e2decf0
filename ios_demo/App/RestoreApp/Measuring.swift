import Foundation
import Observation
import RestoreCore
import RestoreCoreML

/// Measures a program on this phone and writes perf.json, in the form of `burnish profile`.
@MainActor @Observable
final class Measuring {
  struct Report {
    let result: Benchmark.Result
    let device: Perf.Device
    let file: URL
  }

  private(set) var report: Report?
  private(set) var done = 0.0
  private(set) var isRunning = false
  private(set) var message: String?
  private var task: Task<Void, Never>?

  func start(_ bundle: RestoreBundle, _ program: Program, _ units: ComputeUnits) {
    guard !isRunning else { return }
    (report, message, done, isRunning) = (nil, nil, 0, true)
    task = Task {
      defer { isRunning = false }
      do {
        report = try await Self.measure(bundle, program, units) { run, all in
          await MainActor.run { self.done = Double(run) / Double(all) }
        }
      } catch is CancellationError {
        message = "Stopped."
      } catch {
        message = "\(error)"
      }
    }
  }

  func stop() { task?.cancel() }

  nonisolated static let perf = URL.documentsDirectory.appendingPathComponent("perf.json")

  nonisolated static func measure(
    _ bundle: RestoreBundle, _ program: Program, _ units: ComputeUnits,
    progress: @escaping @Sendable (Int, Int) async -> Void
  ) async throws -> Report {
    let before = ProcessInfo.processInfo.thermalState
    let loader = CoreMLLoader(units: units)
    let benchmark = Benchmark(loader: loader, folder: try bundle.folder(of: program))
    let result = try await benchmark.run(.init(warmUp: 3, runs: 50), bundle: bundle, progress: progress)
    guard result.distinctOutputs == 1 else {
      throw RestoreError.program(
        "\(result.distinctOutputs) different answers to the same picture; do not trust this program here.")
    }
    let device = Perf.Device.current(thermalBefore: before)
    let report = Perf.report(
      bundle: bundle, program: program, result: result, runner: loader.runner, device: device,
      made: Date.now.ISO8601Format(), version: appVersion)
    try Files.write(report.data, to: perf)
    return Report(result: result, device: device, file: perf)
  }

  nonisolated static var appVersion: String {
    Foundation.Bundle.main.object(forInfoDictionaryKey: "CFBundleShortVersionString") as? String ?? "unknown"
  }
}

extension ProcessInfo.ThermalState {
  /// In the words of Apple's documentation.
  var name: String {
    switch self {
    case .nominal: "nominal"
    case .fair: "fair"
    case .serious: "serious"
    case .critical: "critical"
    @unknown default: "unknown"
    }
  }
}

extension Perf.Device {
  static func current(thermalBefore before: ProcessInfo.ThermalState) -> Perf.Device {
    let process = ProcessInfo.processInfo
    var facts = utsname()
    uname(&facts)
    func text<Characters>(_ field: Characters) -> String {
      withUnsafeBytes(of: field) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }
    var device = Perf.Device()
    device.model = process.environment["SIMULATOR_MODEL_IDENTIFIER"] ?? text(facts.machine)
    device.cores = process.activeProcessorCount
    device.memoryBytes = Int(process.physicalMemory)
    device.system = "iOS \(process.operatingSystemVersion.majorVersion).\(process.operatingSystemVersion.minorVersion)"
    device.kernel = "\(text(facts.sysname)) \(text(facts.release))"
    device.lowPowerMode = process.isLowPowerModeEnabled
    #if targetEnvironment(simulator)
      device.isSimulator = true
    #endif
    device.freeBytes = ProcessMemory.free
    device.thermal = [before.name, process.thermalState.name]
    device.isThrottled = process.thermalState == .serious || process.thermalState == .critical
    return device
  }
}
