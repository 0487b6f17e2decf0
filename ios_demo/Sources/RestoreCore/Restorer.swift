/// A loaded program, ready to restore pictures of any size within a budget. Any number of tasks may use one.
public struct Restorer: Sendable {
  /// Features that are kept of a large picture's tiles, in bytes; what is beyond is encoded again.
  public static let featureMemory = 192 << 20

  public let bundle: RestoreBundle
  public let program: Program
  private let engine: Engine

  public init(bundle: RestoreBundle, program: Program, session: any Session, featureMemory: Int = Restorer.featureMemory) {
    self.bundle = bundle
    self.program = program
    let manifest = bundle.manifest
    // An upper limit of what an encode gives out: a tile in, everything else out.
    let bytesATile = max(1, program.boundaryBytes["encode"] ?? 64 * manifest.tile * manifest.tile)
    // Of several classes of devices the slowest: which of them this one is like is not known, a deadline is to hold.
    let profile = manifest.profiles.filter { $0.program == program.name }
      .max { $0.encode.mean + $0.refine.mean < $1.encode.mean + $1.refine.mean }
    engine = Engine(
      session: session,
      settings: .init(
        program: program.name, tile: manifest.tile, rank: manifest.rank, routing: manifest.routing,
        calibration: program.calibration, keep: max(1, featureMemory / bytesATile)),
      cost: profile.map { CostModel(encode: $0.encode, refine: $0.refine) } ?? CostModel())
  }

  /// Runs all methods, so that caches are warm and costs are known.
  public func warmUp(repetitions: Int = 3) async throws {
    let (engine, settings) = (engine, engine.settings)
    let blank = try Planes(values: Array(repeating: 0.5, count: 3 * settings.tile * settings.tile), side: settings.tile)
    let gates = Routing.tensor(try settings.routing.gates(given: [:]), rank: settings.rank)
    for repetition in 0...repetitions {
      // The first allocates and says nothing of the cost.
      let counts = repetition > 0
      let encoded = try await engine.call(\.encode, counts: counts) { try await $0.encode(blank) }
      let specialists = counts ? [] : settings.routing.specialists.sorted().map(Routing.specialist)
      for method in [Routing.refine] + specialists {
        _ = try await engine.call(\.refine, counts: counts) {
          try await $0.refine(
            blank, original: encoded, estimate: encoded, tokens: encoded.tokens, gates: gates, method: method)
        }
      }
    }
  }

  /// The cost model as it is now: predictions for the next restoration.
  public var cost: CostModel {
    get async { await engine.cost }
  }

  /// Restores a picture: iterate over the updates, then take `result`.
  ///
  /// The restoration ends within the policy's budget: when no iteration fits, the answer is the picture itself. `degradations`
  /// sets the experts' gates by hand: name → weight in [0, 1]. `keepRounds` keeps the picture after every round. Throws
  /// `RestoreError.input` for settings that cannot be used.
  public func restore(
    _ picture: Pixels, policy: Policy, degradations: [String: Double]? = nil, keepRounds: Bool = false
  ) async throws -> RestorationStream {
    let began = ContinuousClock.now
    try policy.check()
    let fixed = try degradations.map { try engine.settings.routing.gates(given: $0) }
    let run = Run(
      engine: engine, cost: await engine.cost, picture: picture, policy: policy, fixed: fixed, keepRounds: keepRounds,
      began: began)
    return RestorationStream(run: run)
  }
}

/// A restoration that is watched while it runs: an update a refine. Steps run while the next update is waited for.
///
/// Cancelling the task that iterates ends it after the step that is running, as `cancel` does.
public struct RestorationStream: AsyncSequence, Sendable {
  public typealias Element = Update

  let run: Run

  public struct Iterator: AsyncIteratorProtocol, Sendable {
    let run: Run

    public func next() async throws -> Update? {
      let run = run
      return try await withTaskCancellationHandler {
        try await run.next()
      } onCancel: {
        Task { await run.cancel() }
      }
    }
  }

  public func makeAsyncIterator() -> Iterator { Iterator(run: run) }

  /// Ends after the step that is running; the best so far stands.
  public func cancel() async { await run.cancel() }

  /// The restoration as far as it got; whole once the updates have ended.
  public var result: Restoration {
    get async { await run.result }
  }

  /// Runs to the end.
  public func finish() async throws -> Restoration {
    for try await _ in self {}
    return await result
  }
}
