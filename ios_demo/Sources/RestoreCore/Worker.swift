/// The answer did not come in time.
struct Late: Error {}

/// Runs a session's calls in the order they come, one at a time, so that any number of tasks can share the session.
///
/// Whoever asked waits no longer than it wants: a call that is late is left to end by itself and its result is dropped.
actor Worker {
  private var last: Task<Void, Never>?

  /// The result of `work`; `took` is told its milliseconds without the wait, also of work that is late.
  ///
  /// Throws `Late` at `deadline`, and whatever `work` throws.
  func call<Value: Sendable>(
    deadline: ContinuousClock.Instant?,
    took: @escaping @Sendable (Double) async -> Void,
    work: @escaping @Sendable () async throws -> Value
  ) async throws -> Value {
    let previous = last
    let task = Task {
      await previous?.value
      try Task.checkCancellation()
      let began = ContinuousClock.now
      let result = try await work()
      await took(began.duration(to: .now).milliseconds)
      return result
    }
    last = Task { _ = await task.result }
    guard let deadline else { return try await task.value }
    return try await first(of: task, before: deadline)
  }

  private func first<Value: Sendable>(
    of task: Task<Value, any Error>, before deadline: ContinuousClock.Instant
  ) async throws -> Value {
    let results = AsyncStream<Result<Value, any Error>>.makeStream()
    let alarm = Task {
      try await Task.sleep(until: deadline, clock: .continuous)
      _ = results.continuation.yield(.failure(Late()))
    }
    Task { _ = results.continuation.yield(await task.result) }
    defer { alarm.cancel() }
    for await result in results.stream {
      if case .failure(let error) = result, error is Late { task.cancel() }
      return try result.get()
    }
    throw CancellationError()
  }
}

extension Duration {
  /// Milliseconds, with their fraction.
  public var milliseconds: Double {
    Double(components.seconds) * 1e3 + Double(components.attoseconds) / 1e15
  }
}
