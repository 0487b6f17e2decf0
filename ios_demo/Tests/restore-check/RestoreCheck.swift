import Foundation

@testable import RestoreCore

/// What the tests in tests/ios ask of RestoreCore from Python, answered as JSON:
///
///     restore-check bundle BUNDLE HEIGHT WIDTH    what is in it, and how it would cut such a picture
///     restore-check job HOME JOB OUT              a job of `burnish profile`, with a recording as its program
///     restore-check probe BUNDLE OUT              the picture and the gates of the app's benchmark
///     restore-check perf BUNDLE PROGRAM RECORDING a report as the app's benchmark writes it
///     restore-check timing MS…                    statistics of durations
@main
struct RestoreCheck {
  static func main() async {
    do {
      try await run(Array(CommandLine.arguments.dropFirst()))
    } catch let error as RestoreError {
      FileHandle.standardError.write(Data("error: \(error)\n".utf8))
      exit(1)
    } catch {
      FileHandle.standardError.write(Data("error: unexpected \(error)\n".utf8))
      exit(3)
    }
  }

  static func run(_ arguments: [String]) async throws {
    func url(_ index: Int) -> URL { URL(fileURLWithPath: arguments[index]) }
    switch (arguments.first, arguments.count) {
    case ("bundle", 4):
      let sides = arguments[2...].compactMap(Int.init)
      print(try describe(RestoreBundle(opening: url(1)), height: sides[0], width: sides[1]).text)
    case ("job", 4):
      let job = try Job(reading: url(2), within: url(1))
      try await JobRunner(job: job, loader: RecordingLoader()).run(into: url(3))
    case ("probe", 3):
      let manifest = try RestoreBundle(opening: url(1)).manifest
      let experts = manifest.routing.experts.count * manifest.rank
      let sample = try Benchmark.probe(tile: manifest.tile, gates: experts)
      let image = Tensor(shape: [1, 3, manifest.tile, manifest.tile], values: sample.image.values)
      let gates = Tensor(shape: [1, experts, 1, 1], values: sample.gates)
      try Safetensors.write(["image": image, "gates": gates], to: url(2))
    case ("timing", 2...):
      print(Perf.Timing(arguments.dropFirst().compactMap(Double.init)).json.text)
    case ("perf", 4):
      let bundle = try RestoreBundle(opening: url(1))
      let program = try bundle.program(arguments[2])
      let result = try await Benchmark(loader: RecordingLoader(), folder: url(3))
        .run(.init(warmUp: 1, runs: 7), bundle: bundle) { _, _ in }
      let report = Perf.report(
        bundle: bundle, program: program, result: result, runner: "a recording", device: .init(),
        made: "2026-01-01T00:00:00Z", version: "0.1.0")
      print(report.text)
    default: throw RestoreError.input("usage: restore-check bundle|job|probe|perf|timing …")
    }
  }

  static func describe(_ bundle: RestoreBundle, height: Int, width: Int) throws -> JSON {
    let manifest = bundle.manifest
    let plan = TilePlan(height: height, width: width, tile: manifest.tile)
    let small = Look.size(height: height, width: width, tile: manifest.tile)
    for program in manifest.programs { _ = try bundle.folder(of: program) }
    func numbers(_ ramps: [[Float]]) -> JSON { .array(ramps.map { .array($0.map { .number(Double($0)) }) }) }
    return .object([
      ("programs", .array(manifest.programs.map { JSON.string($0.name) })),
      ("digests", .array(manifest.programs.map { JSON.string($0.digest) })),
      ("tile", .integer(manifest.tile)), ("rank", .integer(manifest.rank)),
      ("experts", .array(manifest.routing.experts.map(JSON.string))),
      ("rows", .array(plan.rows.map(JSON.integer))), ("columns", .array(plan.columns.map(JSON.integer))),
      ("areas", .array(plan.areas.map(JSON.number))), ("down", numbers(plan.down)), ("across", numbers(plan.across)),
      ("small", .array([.integer(small.height), .integer(small.width)])),
    ])
  }
}
