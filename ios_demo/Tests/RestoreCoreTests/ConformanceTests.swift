import Foundation
import Testing

@testable import RestoreCore

/// The cases of tests/conformance, the same files that Python and Kotlin play; docs/conformance.md has the rules.
struct ConformanceTests {
  struct Case: Sendable, CustomTestStringConvertible {
    let file: String
    let section: String
    let tolerance: JSON
    let json: JSON

    var testDescription: String { "\(file).\(section): \(json["name"]?.asString ?? "without a name")" }
  }

  /// Another folder can be named, to see that a case that is added there is played.
  static let folder: URL = {
    if let named = ProcessInfo.processInfo.environment["BURNISH_CONFORMANCE"] { return URL(fileURLWithPath: named) }
    let repository = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent().deletingLastPathComponent()
    return repository.appendingPathComponent("tests/conformance")
  }()

  static func cases(_ file: String, _ sections: String...) -> [Case] {
    do {
      let content = try JSON(parsing: Data(contentsOf: folder.appendingPathComponent("\(file).json")))
      return try sections.flatMap { section in
        let tolerance = try #require(content["tolerance"])
        return try #require(content[section]?.asArray).map {
          Case(file: file, section: section, tolerance: tolerance, json: $0)
        }
      }
    } catch {
      fatalError("\(file).json cannot be read: \(error)")
    }
  }

  static let estimates = cases("controller", "estimates")
  static let means = cases("controller", "means")
  static let refusals = cases("controller", "refusals")
  static let controllers = cases("controller", "cases") + cases("tiles", "orders")
  static let routings = cases("routing", "cases")
  static let plans = cases("tiles", "plans")

  @Test(arguments: estimates)
  func estimate(_ given: Case) throws {
    let start = try #require(given.json["start"]?.asDoubles)
    var estimate = Estimate(mean: start[0], deviation: start[1])
    for value in try #require(given.json["observe"]?.asDoubles) { estimate.observe(value) }
    expect(
      given,
      .object([
        ("mean", .number(estimate.mean)), ("deviation", .number(estimate.deviation)), ("upper", .number(estimate.upper)),
      ]))
  }

  @Test(arguments: means)
  func mean(_ given: Case) throws {
    func number(_ key: String) throws -> Double { try #require(given.json[key]?.asDouble) }
    let quality = Quality.ofMean(
      try number("one"), count: given.json["count"]?.asInt ?? 1, joinedBy: try number("other"),
      difference: try number("difference"))
    expect(given, .object([("quality", .number(quality))]))
  }

  @Test(arguments: refusals)
  func refusal(_ given: Case) throws {
    func numbers(_ json: JSON?) throws -> [Double] { try #require(json?.asDoubles) }
    func seed(_ method: String) throws -> Estimate {
      let start = try numbers(given.json["cost"]?[method])
      return Estimate(mean: start[0], deviation: start[1])
    }
    var cost = CostModel(encode: try seed("encode"), refine: try seed("refine"))
    for ms in try numbers(given.json["encode_ms"]) { cost.encode.observe(ms) }
    for ms in try numbers(given.json["refine_ms"]) { cost.refine.observe(ms) }
    for budget in try numbers(given.json["budgets_ms"]) { cost.refused(budgetMs: budget) }
    func told(_ part: Estimate) -> JSON { .array([.number(part.mean), .number(part.deviation)]) }
    expect(given, .object([("encode", told(cost.encode)), ("refine", told(cost.refine))]))
  }

  @Test(arguments: controllers)
  func controller(_ given: Case) throws {
    expect(given, try play(given.json))
  }

  @Test(arguments: routings)
  func routing(_ given: Case) throws {
    let routing = try Routing(#require(given.json["routing"]))
    var logits = try numbers(given.json["logits"])
    let gates: [Gate]
    var more: [(String, JSON)] = []
    if let weights = given.json["given"]?.asObject {
      let stated = Dictionary(uniqueKeysWithValues: weights.map { ($0.key, $0.value.asDouble ?? .nan) })
      guard let accepted = try? routing.gates(given: stated) else {
        expect(given, .object([("error", .bool(true))]))
        return
      }
      gates = accepted
    } else {
      if let looks = try given.json["looks"]?.asArray?.map({ try numbers($0) }), let first = looks.first {
        logits = routing.agreedLogits(looks: looks, tile: logits)
        more = [("tokens", .string(routing.tokenSource(first).rawValue))]
      }
      gates = routing.gates(granularity: given.json["granularity"]?.asDouble ?? .nan, logits: logits)
    }
    let beliefs = zip(routing.leaves, logits).map { Gate(expert: $0, weight: sigmoid($1)) }
    let method = routing.refiner(given.json["given"] == nil ? beliefs : gates)
    let prospect = routing.prospect(degradations: beliefs, gates: gates)
    let promised: [(String, JSON)] = [
      ("belief", .number(prospect.belief)), ("variance", .number(prospect.variance)), ("upright", .bool(prospect.upright)),
    ]
    let weights = gates.map { ($0.expert, JSON.number($0.weight)) }
    more += [("gates", .object(weights)), ("method", .string(method)), ("prospect", .object(promised))]
    expect(given, .object(more))
  }

  @Test(arguments: plans)
  func plan(_ given: Case) throws {
    func int(_ key: String) throws -> Int { try #require(given.json[key]?.asInt) }
    let (height, width, tile) = (try int("height"), try int("width"), try int("tile"))
    let plan = TilePlan(height: height, width: width, tile: tile, overlap: try int("overlap"))
    let weights = try #require(given.json["points"]?.asArray).map { point in
      let place = try #require(point.asInts)
      let weight = plan.down[place[0]][place[2]] * plan.across[place[1]][place[3]]
      return JSON.array(place.map(JSON.integer) + [.number(Double(weight))])
    }
    let small = Look.size(height: height, width: width, tile: tile)
    let areas = plan.count <= 12 ? plan.areas : Array(plan.areas.prefix(3))
    expect(
      given,
      .object([
        ("rows", .array(plan.rows.map(JSON.integer))), ("columns", .array(plan.columns.map(JSON.integer))),
        ("areas", .array(areas.map(JSON.number))), ("weights", .array(weights)),
        ("small", .array([.integer(small.height), .integer(small.width)])),
      ]))
  }

  /// Cases may be added, but an empty or a cut file must not pass.
  @Test func thereAreEnoughCasesOfDifferentNames() {
    #expect(Self.estimates.count >= 10)
    #expect(Self.means.count >= 5)
    #expect(Self.controllers.count >= 70)
    #expect(Self.routings.count >= 20)
    #expect(Self.plans.count >= 15)
    for cases in [Self.estimates, Self.means, Self.controllers, Self.routings, Self.plans] {
      #expect(Set(cases.map(\.testDescription)).count == cases.count)
    }
  }

  /// The loop that a runtime runs, with the case's answers for a program and its durations for a clock.
  private func play(_ given: JSON) throws -> JSON {
    func estimate(_ key: String) throws -> Estimate {
      let pair = try #require(given["cost"]?[key]?.asDoubles)
      return Estimate(mean: pair[0], deviation: pair[1])
    }
    var controller = Controller(
      policy: try Policy(#require(given["policy"])),
      cost: CostModel(encode: try estimate("encode"), refine: try estimate("refine")),
      areas: given["areas"]?.asDoubles ?? [1],
      looks: given["looks"]?.asBool ?? false,
      keep: given["keep"]?.asInt ?? 1_000_000)
    let tiles = try #require(given["tiles"]?.asArray)
    func row(_ tile: Int, _ method: String, _ iteration: Int) throws -> [Double] {
      let rows = try #require(tiles[tile][method]?.asArray)
      try #require(iteration < rows.count)
      return try numbers(rows[iteration])
    }
    func prospect(_ tile: Int) throws -> Prospect {
      let said = try #require(tiles[tile]["prospect"]?.asArray)
      let (belief, variance) = (try #require(said[0].asDouble), try #require(said[1].asDouble))
      return Prospect(belief: belief, variance: variance, upright: try #require(said[2].asBool as Bool?))
    }
    let idle = given["idle_ms"]?.asDouble ?? 0
    var elapsed = given["started_ms"]?.asDouble ?? 0
    var actions: [JSON] = []
    loop: while true {
      var ms = 0.0
      switch controller.choose(elapsedMs: elapsed) {
      case .stop: break loop
      case .look:
        actions.append("look")
        ms = try #require(given["look_ms"]?.asDouble)
        let survey = controller.roundsLookedAt == 0 && given["survey"]?.asBool ?? false
        controller.looked(ms: ms, survey: survey)
      case .encode(let tile):
        actions.append("encode \(tile)")
        let said = try row(tile, "encode", controller.tiles[tile].iteration)
        ms = said[1]
        controller.encoded(tile, quality: said[0], prospect: try prospect(tile), ms: ms)
      case .mirror(let tile):
        actions.append("mirror \(tile)")
        ms = try row(tile, "encode", controller.tiles[tile].iteration)[1]
        controller.mirrored(tile, ms: ms)
      case .recall(let tile):
        actions.append("recall \(tile)")
        ms = try row(tile, "encode", 0)[1]
        controller.recalled(tile, ms: ms)
      case .refine(let tile):
        actions.append("refine \(tile)")
        let said = try row(tile, "refine", controller.tiles[tile].iteration)
        ms = said[1]
        controller.refined(tile, quality: said[0], ms: ms, difference: said[2])
      }
      elapsed += ms + idle
      if actions.count == given["cancel_after"]?.asInt { controller.cancel() }
    }
    return .object([
      ("actions", .array(actions)), ("reason", .string(try #require(controller.reason).rawValue)),
      ("iterations", .array(controller.tiles.map { .integer($0.iteration) })),
      ("kept", .array(controller.tiles.map { .integer($0.bestIteration) })),
      ("quality", .number(controller.quality)), ("elapsed_ms", .number(elapsed)),
    ])
  }

  /// JSON has no NaN: null stands for it.
  private func numbers(_ json: JSON?) throws -> [Double] {
    try #require(json?.asArray).map { $0 == .null ? .nan : try #require($0.asDouble) }
  }

  private func expect(_ given: Case, _ got: JSON) {
    guard let expected = given.json["expected"] else {
      Issue.record("the case expects nothing")
      return
    }
    let relative = given.tolerance["relative"]?.asDouble ?? 0
    let absolute = given.tolerance["absolute"]?.asDouble ?? 0
    #expect(same(got, expected, relative, absolute), "got \(got.text), expected \(expected.text)")
  }

  /// Exact but for numbers, which may differ by the file's relative or absolute tolerance.
  private func same(_ got: JSON, _ expected: JSON, _ relative: Double, _ absolute: Double) -> Bool {
    switch (got, expected) {
    case (.object(let a), .object(let b)):
      a.count == b.count
        && b.allSatisfy { entry in got[entry.key].map { same($0, entry.value, relative, absolute) } ?? false }
    case (.array(let a), .array(let b)):
      a.count == b.count && zip(a, b).allSatisfy { same($0, $1, relative, absolute) }
    case (.integer(let a), .integer(let b)): a == b
    case (.number(let a), .integer(let b)): a == Double(b)
    case (_, .number(let b)):
      got.asDouble.map { abs($0 - b) <= max(relative * max(abs($0), abs(b)), absolute) } ?? false
    default: got == expected
    }
  }
}

extension JSON: ExpressibleByStringLiteral, ExpressibleByStringInterpolation {
  public init(stringLiteral value: String) { self = .string(value) }
}
