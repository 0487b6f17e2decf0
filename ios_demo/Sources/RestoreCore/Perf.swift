import Foundation

/// reports/perf.json as `burnish profile` writes it (device_tests/perf.py): what was measured, and on which device.
public enum Perf {
  public static let format = 1
  static let emulated = "emulated, not a measurement"
  /// Above, later runs count as slower than the first: the device got warm.
  static let mostDrift = 1.1

  /// What the device is and how it was; facts that only its system knows.
  public struct Device: Sendable {
    public var model = ""
    public var cores = 1
    public var memoryBytes = 0
    public var system = ""
    public var kernel = ""
    public var lowPowerMode = false
    public var isSimulator = false
    /// Free for this process when the runs ended; nil where the system does not say.
    public var freeBytes: Int?
    /// The system's thermal state before and after, in its words.
    public var thermal: [String] = []
    /// Whether the system slowed the device down because of heat.
    public var isThrottled = false

    public init() {}
  }

  /// Milliseconds over all timed runs; percentiles are measured values (nearest rank), never interpolated.
  public struct Timing: Equatable, Sendable {
    public let runs: Int
    public let mean, deviation, p50, p90, p99, least: Double

    /// `values`: at least one.
    public init(_ values: [Double]) {
      let ordered = values.sorted()
      let count = Double(ordered.count)
      let mean = ordered.reduce(0, +) / count
      func percentile(_ share: Int) -> Double { ordered[max(0, (share * ordered.count + 99) / 100 - 1)] }
      runs = ordered.count
      self.mean = mean
      deviation = (ordered.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / count).squareRoot()
      p50 = Perf.median(ordered)
      p90 = percentile(90)
      p99 = percentile(99)
      least = ordered[0]
    }

    var json: JSON {
      .object([
        ("runs", .integer(runs)), ("mean_ms", Perf.rounded(mean)), ("deviation_ms", Perf.rounded(deviation)),
        ("p50_ms", Perf.rounded(p50)), ("p90_ms", Perf.rounded(p90)), ("p99_ms", Perf.rounded(p99)),
        ("least_ms", Perf.rounded(least)),
      ])
    }
  }

  /// The report of one program on this device. `made`: UTC, ISO 8601. `version`: the app's.
  public static func report(
    bundle: RestoreBundle, program: Program, result: Benchmark.Result, runner: String, device: Device, made: String,
    version: String
  ) -> JSON {
    let iterations = zip(result.encodeMs, result.refineMs).map(+)
    let drift = Self.drift(iterations)
    let row: [(key: String, value: JSON)] = [
      ("program", .string(program.name)), ("sha256", .string(program.digest)), ("runner", .string(runner)),
      ("threads", .integer(0)), ("note", .string(device.isSimulator ? emulated : "")),
      ("encode", Timing(result.encodeMs).json), ("refine", Timing(result.refineMs).json),
      ("iteration", Timing(iterations).json), ("drift", rounded(drift)),
      ("throttled", .bool(!device.isSimulator && (device.isThrottled || drift > mostDrift))),
      ("load_cold_ms", rounded(result.loadColdMs)), ("load_warm_ms", rounded(result.loadWarmMs)),
      ("first_run_ms", rounded(result.firstRunMs)), ("program_bytes", .integer(result.programBytes)),
      ("process_bytes", .integer(result.processBytes)),
      ("temperature", .object([("before_c", .null), ("after_c", .null), ("waited_s", .number(0))])),
      // What limits the clock: iOS says no more of it than its thermal state.
      ("governor", .string("thermal state \(device.thermal.joined(separator: ", then "))")),
      ("free_bytes", device.freeBytes.map(JSON.integer) ?? .null), ("digest", .string(result.digest)),
    ]
    let identity = JSON.object([
      ("platform", .string("ios-arm64")), ("model", .string(device.model)), ("cores", .integer(max(1, device.cores))),
      ("memory_bytes", .integer(device.memoryBytes)), ("os", .string(device.system)), ("kernel", .string(device.kernel)),
      ("power_mode", .string(device.lowPowerMode ? "low power mode" : "")),
      ("emulated", .string(device.isSimulator ? "iOS Simulator" : "")),
    ])
    let measured = JSON.object([
      ("device", .string("ios:app")), ("identity", identity), ("programs", .array([.object(row)])),
    ])
    return .object([
      ("format", .integer(format)), ("bundle", .string(bundle.folder.lastPathComponent)),
      ("student", .string(bundle.manifest.student)), ("made", .string(made)),
      ("versions", .object([("RestoreApp", .string(version))])), ("devices", .array([measured])),
    ])
  }

  /// Median of the last fifth of the runs by that of the first.
  static func drift(_ values: [Double]) -> Double {
    let block = max(1, values.count / 5)
    return median(Array(values.suffix(block))) / median(Array(values.prefix(block)))
  }

  static func median(_ values: [Double]) -> Double {
    let ordered = values.sorted()
    let middle = ordered.count / 2
    return ordered.count % 2 == 1 ? ordered[middle] : (ordered[middle - 1] + ordered[middle]) / 2
  }

  private static func rounded(_ value: Double) -> JSON { .number((value * 1e4).rounded() / 1e4) }
}
