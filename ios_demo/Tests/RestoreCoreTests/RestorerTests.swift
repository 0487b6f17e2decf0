import Foundation
import Testing

@testable import RestoreCore

struct RestorerTests {
  @Test func aPictureOfOneTileIsRestoredUntilItsIterationsAreDone() async throws {
    var policy = Policy()
    policy.maxIterations = 2
    policy.minGain = -1
    let given = try picture(40, 50)
    let result = try await restorer(Grey()).restore(given, policy: policy).finish()
    #expect(result.reason == .iterations)
    #expect(result.trace.map(\.ran) == [.encode, .refine, .mirror, .refine])
    #expect(result.steps.map(\.iteration) == [0, 1, 2])
    var worst = 0
    for (got, came) in zip(result.picture.data, given.data) {
      // What is done to every pixel alike is done to the mirror image too, and so to the mean.
      let once: Int = (Int(came) + 128) / 2
      worst = max(worst, abs(Int(got) - once))
    }
    #expect(worst <= 1)
  }

  @Test func aTileIsTurnedUpsideDownWhereThereIsNoHazeOrLowLight() async throws {
    var policy = Policy()
    policy.minIterations = 4
    let cases: [(lowLight: Double, stated: [String: Double]?, mirrors: Int)] = [
      (-4, nil, 3), (2, nil, 1), (-4, ["haze": 0.6], 1), (-4, ["rain": 1], 3),
    ]
    for (lowLight, stated, mirrors) in cases {
      let made = try await restorer(Grey(logits: [2, -4, -4, lowLight, -4, -4, -4]))
      let result = try await made.restore(picture(64, 64), policy: policy, degradations: stated).finish()
      #expect(result.trace.filter { $0.ran == .mirror }.map(\.iteration) == Array(1...mirrors))
      #expect(result.steps.map(\.iteration) == [0, 1, 2, 3, 4])
    }
  }

  @Test func tilesAreRefinedInTurnAndThePictureIsWholeAfterEveryUpdate() async throws {
    var policy = Policy()
    policy.maxIterations = 1
    let given = try picture(100, 150)
    let stream = try await restorer(Grey()).restore(given, policy: policy, keepRounds: true)
    var updates: [Update] = []
    for try await update in stream { updates.append(update) }
    let result = await stream.result
    #expect(updates.count == result.tiles)
    #expect(updates.map(\.done) == Array(1...result.tiles))
    for (earlier, later) in zip(updates, updates.dropFirst()) {
      var expected = earlier.picture
      expected.put(later.picture.crop(later.region), at: later.region)
      #expect(expected == later.picture)
    }
    #expect(updates.last?.picture == result.picture)
    #expect(result.rounds == [given, result.picture])
    #expect(result.trace.first?.ran == .look)
  }

  /// As an app's screen does it.
  @MainActor @Test func updatesComeToTheMainActor() async throws {
    var seen = 0
    let stream = try await restorer(Grey()).restore(picture(64, 64), policy: Policy())
    for try await update in stream {
      MainActor.assertIsolated()
      seen = update.iteration
    }
    #expect(await stream.result.iteration == seen)
  }

  @Test func withoutTimeTheAnswerIsThePictureItself() async throws {
    let slow = try await restorer(Grey(delayMs: 5))
    try await slow.warmUp()
    var policy = Policy()
    policy.budgetMs = 1
    let given = try picture(64, 64)
    let result = try await slow.restore(given, policy: policy).finish()
    #expect(result.reason == .budget)
    #expect(result.picture == given)
    #expect(result.trace.isEmpty)
  }

  @Test func aStepThatIsLateIsLeft() async throws {
    // Nothing is known of its cost: the first call is started, and left at the deadline. It ends only after the restoration.
    var policy = Policy()
    policy.budgetMs = 30
    let (given, session) = (try picture(64, 64), Stuck())
    let result = try await restorer(session).restore(given, policy: policy).finish()
    #expect(result.reason == .budget)
    #expect(result.picture == given)
    await session.release()
  }

  @Test func aBrokenPictureIsThrownAway() async throws {
    let given = try picture(64, 64)
    let result = try await restorer(Grey(breaksAt: 1)).restore(given, policy: Policy()).finish()
    #expect(result.reason == .broken)
    #expect(result.wasBroken)
    #expect(result.picture == given)
    #expect(result.json(name: "x")["trace"]?.asArray?.last?["broken"]?.asBool == true)
  }

  @Test func theBestPictureIsKeptWhenQualityFalls() async throws {
    let session = Grey(qualities: [0.6, 0.2])
    let stream = try await restorer(session).restore(picture(64, 64), policy: Policy())
    var first: Pixels?
    for try await update in stream where first == nil { first = update.picture }
    let result = await stream.result
    #expect(result.reason == .regression)
    #expect(result.iteration == 1)
    #expect(result.picture == first)
  }

  @Test func cancellingKeepsWhatIsThere() async throws {
    let stream = try await restorer(Grey()).restore(picture(64, 200), policy: Policy())
    for try await _ in stream {
      await stream.cancel()
    }
    let result = await stream.result
    #expect(result.reason == .cancelled)
    #expect(result.trace.count { $0.ran == .refine } == 1)
  }

  @Test func cancellingTheTaskEndsIt() async throws {
    let stream = try await restorer(Grey(delayMs: 20)).restore(picture(200, 200), policy: Policy())
    let task = Task { try await stream.finish() }
    try await Task.sleep(for: .milliseconds(60))
    task.cancel()
    let result = try await task.value
    #expect(result.reason == .cancelled)
  }

  @Test func callsOfSeveralRestorationsRunOneAtATime() async throws {
    let session = Grey(delayMs: 1)
    let shared = try await restorer(session)
    let given = try picture(64, 100)
    var policy = Policy()
    policy.minGain = -1
    try await withThrowingTaskGroup(of: Restoration.self) { group in
      for _ in 0..<4 { group.addTask { [policy] in try await shared.restore(given, policy: policy).finish() } }
      for try await result in group { #expect(result.reason == .iterations) }
    }
    #expect(await session.mostAtOnce == 1)
  }

  @Test func featuresBeyondTheMemoryAreEncodedAgain() async throws {
    // The mirror images, of which there are three, want no evidence.
    var policy = Policy()
    (policy.maxIterations, policy.minGain) = (5, -1)
    let result = try await restorer(Grey(), featureMemory: 1).restore(picture(64, 200), policy: policy).finish()
    #expect(result.trace.contains { $0.ran == .recall })
  }

  /// A picture of several tiles, restored by a program that finds haze and low light in that measure.
  private func restored(
    haze: Double = -4, lowLight: Double, featureMemory: Int = 1 << 30
  ) async throws -> (session: Grey, result: Restoration) {
    let routes = #"top": 4, "look_tokens": ["snow", "haze"], "mean_tokens": ["rain", "low_light"]}"#
    let manifest = manifestText.replacingOccurrences(of: #"top": 4}"#, with: routes)
    let session = Grey(logits: [-4, -4, haze, lowLight, -4, -4, -4])
    var policy = Policy()
    (policy.maxIterations, policy.minIterations, policy.rollback) = (2, 2, false)
    let made = try await restorer(session, featureMemory: featureMemory, manifest: manifest)
    return (session, try await made.restore(picture(64, 200), policy: policy).finish())
  }

  @Test func tilesGoByTheTokensOfTheFirstLookWhereItFindsHaze() async throws {
    let (session, result) = try await restored(haze: 2, lowLight: 2)
    let (said, asked) = (await session.said, await session.asked)
    #expect(asked == Array(repeating: said[0], count: 2 * result.tiles))
    #expect(result.trace.prefix(3).map(\.ran) == [.look, .encode, .refine])
  }

  @Test func tilesGoByTheMeanOfTheirTokensWhereTheFirstLookFindsLowLight() async throws {
    // Room for all tiles, and for two of them.
    for (memory, surveyed) in [(1 << 30, [0, 1, 2, 3, 4, 5]), (2_000_000, [0, 3])] {
      let (session, result) = try await restored(lowLight: 2, featureMemory: memory)
      let (said, asked) = (await session.said, await session.asked)
      let before = result.trace.prefix { $0.ran != .refine }
      #expect(before.map(\.ran) == [.look] + surveyed.map { _ in .encode })
      #expect(before.dropFirst().map(\.tile) == surveyed)
      let areas = TilePlan(height: 64, width: 200, tile: 64).areas
      let survey = zip(surveyed, said.dropFirst()).map { (area: areas[$0], tokens: $1) }
      #expect(asked == Array(repeating: Run.meanTokens(survey), count: 2 * result.tiles))
    }
    #expect(Run.meanTokens([(0.5, [1, -2]), (0.25, [4, 1])]) == [2, -1])
  }

  @Test func otherwiseEveryTileGoesByItsOwnTokens() async throws {
    let (session, result) = try await restored(haze: 1, lowLight: 0)
    let (said, asked) = (await session.said, await session.asked)
    #expect(Set(asked).count == 2 * result.tiles)
    #expect(asked.allSatisfy(said.dropFirst().contains))
    // There is no look at a picture of one tile.
    let alone = Grey(logits: [2, 2, 2, 2, 2, 2, 2])
    _ = try await restorer(alone).restore(picture(64, 64), policy: Policy()).finish()
    #expect(await alone.asked == alone.said)
  }

  /// Of the bundle that has specialists of rain and noise.
  private func withSpecialists(_ session: Grey) async throws -> Restorer {
    let routes = #""top": 4, "specialists": ["rain", "noise"]}"#
    return try await restorer(session, manifest: manifestText.replacingOccurrences(of: #""top": 4}"#, with: routes))
  }

  @Test func whatATileHasAloneIsRestoredByItsSpecialist() async throws {
    let cases: [(noise: Double, blur: Double, stated: [String: Double]?, method: String)] = [
      (2, -4, nil, "refine_noise"), (2, 2, nil, "refine"), (-4, 2, nil, "refine"),
      (2, -4, ["rain": 1, "weather": 1], "refine_rain"), (2, -4, ["exposure": 1], "refine"),
    ]
    for (noise, blur, stated, method) in cases {
      let session = Grey(logits: [-4, -4, -4, -4, noise, blur, -4])
      _ = try await withSpecialists(session).restore(picture(64, 200), policy: Policy(), degradations: stated).finish()
      #expect(Set(await session.methods) == [method])
    }
  }

  @Test func whatARestorationLeftIsNoSpecialists() async throws {
    let session = Grey(logits: [-4, -4, -4, -4, 2, -4, -4])
    var policy = Policy()
    (policy.maxIterations, policy.minIterations, policy.rollback) = (5, 5, false)
    _ = try await withSpecialists(session).restore(picture(64, 64), policy: policy).finish()
    #expect(await session.methods == Array(repeating: "refine_noise", count: 4) + ["refine"])
  }

  @Test func everySpecialistIsWarmedUpOnce() async throws {
    let session = Grey()
    try await withSpecialists(session).warmUp(repetitions: 2)
    #expect(await session.methods == ["refine", "refine_noise", "refine_rain", "refine", "refine"])
  }

  @Test func gatesThatAreGivenAreCheckedAndUsed() async throws {
    let made = try await restorer(Grey())
    let given = try picture(64, 64)
    await #expect(throws: RestoreError.self) {
      _ = try await made.restore(given, policy: Policy(), degradations: ["fog": 1])
    }
    let result = try await made.restore(given, policy: Policy(), degradations: ["rain": 0.5]).finish()
    #expect(result.steps.last?.gates.filter { $0.weight > 0 } == [Gate(expert: "rain", weight: 0.5)])
  }

  @Test func settingsThatMakeNoSenseAreRefused() async throws {
    var policy = Policy()
    policy.budgetMs = -1
    await #expect(throws: RestoreError.self) { [policy] in
      _ = try await restorer(Grey()).restore(picture(8, 8), policy: policy)
    }
    #expect(throws: RestoreError.self) { try Policy(JSON(parsing: Data(#"{"budget": 3}"#.utf8))) }
    #expect(throws: RestoreError.self) { try Pixels(height: 0, width: 1, data: []) }
  }
}
