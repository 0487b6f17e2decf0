/// Gathers the steps of tiles into rows of the whole picture, a row a round of iterations.
///
/// Round n is over when every tile had n iterations or is done; what comes after the last whole round is a row too.
struct Rounds: Sendable {
  /// What a row will be made of.
  private struct Sums {
    var costMs = 0.0
    var elapsedMs = 0.0
    var area = 0.0
    var error = 0.0
    var gates: [Gate] = []
    var degradations: [Gate] = []

    mutating func add(_ share: Double, _ gates: [Gate], _ degradations: [Gate]) {
      area += share
      self.gates = Self.sum(self.gates, gates, share)
      self.degradations = Self.sum(self.degradations, degradations, share)
    }

    func row(_ iteration: Int, _ quality: Double) -> Step {
      func mean(_ total: [Gate]) -> [Gate] { total.map { Gate(expert: $0.expert, weight: $0.weight / area) } }
      return Step(
        iteration: iteration, quality: quality, costMs: costMs, elapsedMs: elapsedMs, gates: mean(gates),
        degradations: mean(degradations))
    }

    /// Both have the experts in the same order, or `total` is still empty.
    private static func sum(_ total: [Gate], _ values: [Gate], _ share: Double) -> [Gate] {
      values.indices.map { i in
        Gate(expert: values[i].expert, weight: (total.isEmpty ? 0 : total[i].weight) + share * values[i].weight)
      }
    }
  }

  private let areas: [Double]
  private var finished: [Step] = []
  private var start = Sums()
  private var now = Sums()
  private var done: Set<Int> = []
  private var iterations: [Int]
  private var missing: Set<Int>
  /// Tiles that had their first iteration or needed none.
  private(set) var begun = 0

  init(areas: [Double]) {
    self.areas = areas
    iterations = areas.map { _ in 0 }
    missing = Set(areas.indices)
  }

  /// Whether tiles were refined since the last row.
  var isOpen: Bool { now.area > 0 }

  /// A step took `ms`; `first`: it belongs to the assessment of the picture as it came.
  mutating func spent(_ ms: Double, elapsedMs: Double, first: Bool) {
    if first {
      start.costMs += ms
      start.elapsedMs = elapsedMs
    } else {
      now.costMs += ms
      now.elapsedMs = elapsedMs
    }
  }

  /// A tile of the picture as it came was assessed.
  mutating func started(_ index: Int, quality: Double, degradations: [Gate]) {
    start.add(areas[index], [], degradations)
    start.error += areas[index] * Quality.error(quality)
  }

  /// A tile had one more iteration.
  mutating func refined(_ index: Int, gates: [Gate], degradations: [Gate]) {
    now.add(areas[index], gates, degradations)
  }

  /// A tile got so far; whether that ended the round, with the picture's `quality`.
  mutating func reached(_ index: Int, iteration: Int, isDone: Bool, quality: Double) -> Bool {
    iterations[index] = iteration
    if isDone { done.insert(index) }
    if iteration >= round || isDone {
      if missing.contains(index) && round == 1 { begun += 1 }
      missing.remove(index)
    }
    guard missing.isEmpty, isOpen else { return false }
    finished = rows(quality: quality)
    now = Sums()
    missing = Set(areas.indices.filter { iterations[$0] < round && !done.contains($0) })
    return true
  }

  /// All rows so far, with what the current round has done; `quality`: the picture's now.
  func rows(quality: Double) -> [Step] {
    var rows = finished
    if rows.isEmpty && start.area > 0 { rows.append(start.row(0, Quality.of(error: start.error / start.area))) }
    if isOpen { rows.append(now.row(rows.count, quality)) }
    return rows
  }

  private var round: Int { max(1, finished.count) }
}
