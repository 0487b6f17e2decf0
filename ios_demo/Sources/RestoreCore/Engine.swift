/// A loaded program and what is known of it, shared by all restorations that it does.
actor Engine {
  private nonisolated let session: any Session
  nonisolated let settings: Settings
  private nonisolated let worker = Worker()
  private(set) var cost: CostModel

  /// What a bundle says of a program. `keep`: of how many pictures features may be kept.
  struct Settings: Sendable {
    let program: String
    let tile: Int
    let rank: Int
    let routing: Routing
    let calibration: Calibration
    let keep: Int
  }

  init(session: any Session, settings: Settings, cost: CostModel) {
    self.session = session
    self.settings = settings
    self.cost = cost
  }

  /// A call ended, whoever asked for it and whether he still waits.
  func took(_ method: WritableKeyPath<CostModel, Estimate> & Sendable, _ ms: Double) { cost[keyPath: method].observe(ms) }

  /// A restoration ended by its budget before its first step.
  func refused(budgetMs: Double) { cost.refused(budgetMs: budgetMs) }

  /// The result of a call of the program, after those that others asked for. Throws `Late` at `deadline`.
  nonisolated func call<Value: Sendable>(
    _ method: WritableKeyPath<CostModel, Estimate> & Sendable, deadline: ContinuousClock.Instant? = nil,
    counts: Bool = true, _ work: @escaping @Sendable (any Session) async throws -> Value
  ) async throws -> Value {
    try await worker.call(
      deadline: deadline, took: { if counts { await self.took(method, $0) } }, work: { try await work(self.session) })
  }
}
