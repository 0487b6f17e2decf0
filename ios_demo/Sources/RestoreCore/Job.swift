import Foundation

/// A job of `burnish profile` or `burnish validate`: a folder with job.json and what it names; docs/devices.md has the schema.
///
/// The same folder that the runners in C++ and Python take.
public struct Job: Sendable {
  public static let format = 1
  public static let name = "job.json"
  public static let resultName = "result.json"

  /// Timed runs of both methods on sample 0, after a warm-up.
  public struct Measure: Equatable, Sendable {
    public let warmUp: Int
    public let runs: Int

    public init(warmUp: Int, runs: Int) {
      self.warmUp = warmUp
      self.runs = runs
    }
  }

  /// The whole loop on every picture.
  struct Restore: Sendable {
    let settings: Engine.Settings
    let policy: Policy
    let keepRounds: Bool
  }

  public let folder: URL
  /// The program's folder.
  public let program: URL
  /// Seconds after which whoever runs the job ends itself, since nobody may be watching.
  public let limitS: Int
  public let measure: Measure?
  /// Outputs of both methods to keep of every sample.
  public let samples: [String]?
  let restore: Restore?

  /// Reads job.json. `home`: the folder that the job's program must lie in. Throws `RestoreError.input`.
  public init(reading folder: URL, within home: URL) throws {
    guard let data = try? Data(contentsOf: folder.appendingPathComponent(Self.name)) else {
      throw RestoreError.input("\(folder.path) has no \(Self.name)")
    }
    let json = try JSON(parsing: data)
    guard json["format"]?.asInt == Self.format else {
      throw RestoreError.input("job.json has another format than this app's (\(Self.format)); update the app or burnish")
    }
    self.folder = folder
    let place = json["program"]?.asString ?? ""
    guard let real = RestoreBundle.real(folder.appendingPathComponent(place)), let root = RestoreBundle.real(home),
      real.hasPrefix(root + "/")
    else { throw RestoreError.input("job.json's program \(place) is missing or outside of the job's home") }
    program = URL(fileURLWithPath: real)
    limitS = max(1, json["limit_s"]?.asInt ?? 300)
    measure = try json["measure"].map { json in
      let (warmUp, runs) = (json["warm_up"]?.asInt ?? 3, json["runs"]?.asInt ?? 20)
      guard (0...10_000).contains(warmUp), (1...100_000).contains(runs) else {
        throw RestoreError.input("job.json asks for \(warmUp) + \(runs) runs")
      }
      return Measure(warmUp: warmUp, runs: runs)
    }
    samples = json["samples"].map { $0["outputs"]?.asStrings ?? ["restored", "quality", "assessment"] }
    guard json["etdump_runs"] == nil else {
      throw RestoreError.input("job.json asks for an ETDump, which Core ML does not have")
    }
    let name = program.lastPathComponent
    restore = try json["restore"].map { try Self.restore($0, program: name) }
  }

  private static func restore(_ json: JSON, program: String) throws -> Restore {
    guard let tile = json["tile"]?.asInt, let rank = json["rank"]?.asInt, let routing = json["routing"],
      (1...4096).contains(tile), (1...1024).contains(rank)
    else { throw RestoreError.input("job.json's tile, rank or routing is missing or impossible") }
    let settings = Engine.Settings(
      program: program, tile: tile, rank: rank, routing: try Routing(routing),
      calibration: Calibration(json["calibration"]), keep: max(1, json["keep"]?.asInt ?? 1_000_000))
    return Restore(
      settings: settings, policy: try json["policy"].map(Policy.init) ?? Policy(),
      keepRounds: json["keep_steps"]?.asBool ?? false)
  }
}
