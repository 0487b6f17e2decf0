import Foundation

/// Loads programs for jobs and benchmarks, and says what they cost the process; Core ML's is in RestoreCoreML.
public protocol Loader: Sendable {
  /// What runs the programs, with its version.
  var runner: String { get }
  /// `cold`: nothing of the program is cached. `folder`: the program's.
  func load(_ folder: URL, cold: Bool) async throws -> any Session
  /// Bytes that the process has in memory now; 0 where the system does not say.
  var memoryInUse: Int { get }
}

/// Does a job and writes its results; result.json last, so that whoever finds it finds all the rest.
public struct JobRunner: Sendable {
  let job: Job
  let loader: any Loader

  public init(job: Job, loader: any Loader) {
    self.job = job
    self.loader = loader
  }

  /// `out`: an existing folder.
  public func run(into out: URL) async throws {
    var entries: [(key: String, value: JSON)] = [
      ("format", .integer(Job.format)), ("runner", .string(loader.runner)), ("threads", .integer(0)),
    ]
    let wantsSamples = job.measure != nil || job.samples != nil
    let samples = wantsSamples ? try Samples(reading: job.folder.appendingPathComponent("samples.safetensors")) : nil
    let session: any Session
    if let wanted = job.measure, let samples {
      let measured = try await Benchmark(loader: loader, folder: job.program).run(wanted, sample: samples[0])
      session = measured.session
      entries += measured.json
    } else {
      session = try await loader.load(job.program, cold: false)
    }
    if let outputs = job.samples, let samples {
      let results = try await samples.run(session, outputs: outputs)
      try Safetensors.write(results, to: out.appendingPathComponent("samples.safetensors"))
    }
    if let restore = job.restore {
      let engine = Engine(session: session, settings: restore.settings, cost: CostModel())
      let pictures = try Safetensors.pictures(at: job.folder.appendingPathComponent("pictures.safetensors"))
      var (rows, restored): ([JSON], [String: Pixels]) = ([], [:])
      for (name, picture) in pictures.sorted(by: { $0.key < $1.key }) {
        // Every picture starts without knowledge of costs, as with the other runners.
        let run = Run(
          engine: engine, cost: CostModel(), picture: picture, policy: restore.policy, fixed: nil,
          keepRounds: restore.keepRounds, began: .now)
        let result = try await RestorationStream(run: run).finish()
        rows.append(result.json(name: name))
        restored[name] = result.picture
        for (round, shown) in result.rounds.enumerated() { restored["\(name).\(round)"] = shown }
      }
      try Safetensors.write(restored, to: out.appendingPathComponent("restored.safetensors"))
      entries.append(("restorations", .array(rows)))
    }
    try Files.write(JSON.object(entries).data, to: out.appendingPathComponent(Job.resultName))
  }
}

/// A job's samples: a picture, the estimate that is refined (the picture itself where none is given) and its gates.
struct Samples {
  struct Sample: Sendable {
    let image: Planes
    let current: Planes?
    let gates: [Float]
  }

  private let all: [Sample]

  subscript(index: Int) -> Sample { all[index] }

  /// Throws `RestoreError.input`.
  init(reading file: URL) throws {
    let tensors = try Safetensors.tensors(at: file)
    func planes(_ name: String) throws -> Planes? {
      guard let tensor = tensors[name] else { return nil }
      guard tensor.shape.count == 4, tensor.shape[0] == 1, tensor.shape[1] == 3, tensor.shape[2] == tensor.shape[3] else {
        throw RestoreError.input("sample \(name) has the shape \(tensor.shape); expected 1 × 3 × side × side")
      }
      return try Planes(values: tensor.values, side: tensor.shape[3])
    }
    var all: [Sample] = []
    while let image = try planes("\(all.count).image"), let gates = tensors["\(all.count).gates"] {
      all.append(Sample(image: image, current: try planes("\(all.count).current"), gates: gates.values))
    }
    guard !all.isEmpty else { throw RestoreError.input("the job's samples lack 0.image or 0.gates") }
    self.all = all
  }

  /// Outputs of both methods for every sample, under "SAMPLE.NAME". Throws `RestoreError.input` for unknown names.
  func run(_ session: any Session, outputs: [String]) async throws -> [String: Tensor] {
    var results: [String: Tensor] = [:]
    for (index, sample) in all.enumerated() {
      let original = try await session.encode(sample.image)
      let current = sample.current ?? sample.image
      let estimate = sample.current == nil ? original : try await session.encode(current)
      let refined = try await session.refine(
        current, original: original, estimate: estimate, tokens: estimate.tokens, gates: sample.gates, method: Routing.refine)
      for name in outputs {
        switch name {
        case "restored":
          let side = refined.restored.side
          results["\(index).restored"] = Tensor(shape: [1, 3, side, side], values: refined.restored.values)
        case "quality": results["\(index).quality"] = Tensor(shape: [1], values: [Float(refined.quality)])
        case "assessment":
          let values = ([original.quality, original.granularity] + original.logits).map { Float($0) }
          results["\(index).assessment"] = Tensor(shape: [values.count], values: values)
        default: throw RestoreError.input("the app does not hand out \(name); it has restored, quality, assessment")
        }
      }
    }
    return results
  }
}
