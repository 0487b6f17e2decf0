import Foundation

/// What a program costs on this device: loading, first run, timed runs of both methods, memory, and whether it is steady.
public struct Benchmark: Sendable {
  let loader: any Loader
  let folder: URL

  public struct Result: Sendable {
    public let session: any Session
    public let loadColdMs: Double
    public let loadWarmMs: Double
    public let firstRunMs: Double
    public let encodeMs: [Double]
    public let refineMs: [Double]
    /// How many different outputs the runs gave, and a digest of the first.
    public let distinctOutputs: Int
    public let digest: String
    public let programBytes: Int
    public let processBytes: Int

    /// As in a job's result.json.
    var json: [(key: String, value: JSON)] {
      func list(_ values: [Double]) -> JSON { .array(values.map(JSON.number)) }
      return [
        (
          "measure",
          .object([
            ("encode_ms", list(encodeMs)), ("refine_ms", list(refineMs)), ("distinct_outputs", .integer(distinctOutputs)),
            ("digest", .string(digest)),
          ])
        ),
        (
          "load",
          .object([
            ("cold_ms", .number(loadColdMs)), ("first_run_ms", .number(firstRunMs)), ("warm_ms", .number(loadWarmMs)),
          ])
        ),
        ("memory", .object([("program_bytes", .integer(programBytes)), ("process_bytes", .integer(processBytes))])),
      ]
    }
  }

  public init(loader: any Loader, folder: URL) {
    self.loader = loader
    self.folder = folder
  }

  /// A picture of `tile` pixels with edges, slopes and noise, the same on every device, and half of every gate open.
  static func probe(tile: Int, gates: Int) throws -> Samples.Sample {
    var (state, data): (UInt32, [UInt8]) = (1, [])
    for y in 0..<tile {
      for x in 0..<tile {
        for channel in 0..<3 {
          state = state &* 1_664_525 &+ 1_013_904_223
          let noise = Int(state >> 28)
          let slope = 160 * (channel == 1 ? y : x) / tile
          data.append(UInt8(clamping: slope + noise + ((x / 16 + y / 16) % 2 == 0 ? 40 : 0)))
        }
      }
    }
    let planes = Planes(try Pixels(height: tile, width: tile, data: data), side: tile)
    return .init(image: planes, current: nil, gates: Array(repeating: 0.5, count: gates))
  }

  /// Measures a bundle's program on a picture of its own. `progress`: runs done and in all.
  public func run(
    _ wanted: Job.Measure, bundle: RestoreBundle, progress: @escaping @Sendable (Int, Int) async -> Void
  ) async throws -> Result {
    let manifest = bundle.manifest
    let sample = try Self.probe(tile: manifest.tile, gates: manifest.routing.experts.count * manifest.rank)
    return try await run(wanted, sample: sample, progress: progress)
  }

  func run(
    _ wanted: Job.Measure, sample: Samples.Sample, progress: @escaping @Sendable (Int, Int) async -> Void = { _, _ in }
  ) async throws -> Result {
    let before = loader.memoryInUse
    var most = before
    let (session, cold) = try await timed { try await loader.load(folder, cold: true) }
    let (_, first) = try await timed { try await iteration(session, sample) }
    most = max(most, loader.memoryInUse)
    var (encodeMs, refineMs, digests): ([Double], [Double], [String]) = ([], [], [])
    for run in 0..<wanted.warmUp + wanted.runs {
      try Task.checkCancellation()
      let (encoded, encode) = try await timed { try await session.encode(sample.image) }
      let (refined, refine) = try await timed {
        try await session.refine(
          sample.image, original: encoded, estimate: encoded, tokens: encoded.tokens, gates: sample.gates, method: Routing.refine)
      }
      digests.append(Self.digest(encoded, refined))
      most = max(most, loader.memoryInUse)
      if run >= wanted.warmUp {
        encodeMs.append(encode)
        refineMs.append(refine)
      }
      await progress(run + 1, wanted.warmUp + wanted.runs)
    }
    let (_, warm) = try await timed { try await loader.load(folder, cold: false) }
    return Result(
      session: session, loadColdMs: cold, loadWarmMs: warm, firstRunMs: first, encodeMs: encodeMs, refineMs: refineMs,
      distinctOutputs: Set(digests).count, digest: digests[0], programBytes: max(0, most - before), processBytes: most)
  }

  private func iteration(_ session: any Session, _ sample: Samples.Sample) async throws -> Refined {
    let encoded = try await session.encode(sample.image)
    return try await session.refine(
      sample.image, original: encoded, estimate: encoded, tokens: encoded.tokens, gates: sample.gates, method: Routing.refine)
  }

  private func timed<Value>(_ work: () async throws -> Value) async throws -> (Value, ms: Double) {
    let began = ContinuousClock.now
    let result = try await work()
    return (result, began.duration(to: .now).milliseconds)
  }

  /// Over what both methods say and the picture, bit by bit; features are the session's own and show in the picture.
  private static func digest(_ encoded: Encoded, _ refined: Refined) -> String {
    let said = [encoded.quality, encoded.granularity] + encoded.logits + [refined.quality]
    var hash = SHA256()
    said.withUnsafeBytes { hash.update($0) }
    refined.restored.values.withUnsafeBytes { hash.update($0) }
    return String(hash.finish().prefix(16))
  }
}
