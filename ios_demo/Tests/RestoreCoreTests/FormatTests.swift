import Foundation
import Testing

@testable import RestoreCore

struct FormatTests {
  @Test(arguments: [
    ("{\"b\": [1, -2.5, 1e3, true, null], \"a\": \"x\\n\\u00e9\\ud83d\\ude00\\\"\"}", true), ("[]", true), ("{}", true),
    ("\"\"", true), ("-0", true), ("[1,]", false), ("{\"a\" 1}", false), ("01", false), ("1e999", false), ("\"\\ud83d\"", false),
    ("nul", false), ("", false), ("1 2", false), ("\"a", false), ("+1", false), (".5", false), ("[\u{FEFF}]", false),
  ])
  func jsonIsReadAsItIsDefined(text: String, isValid: Bool) throws {
    let parsed = try? JSON(parsing: Data(text.utf8))
    #expect((parsed != nil) == isValid)
    if let parsed { #expect(try JSON(parsing: parsed.data) == parsed) }
  }

  @Test func jsonKeepsItsOrder() throws {
    let parsed = try JSON(parsing: Data(#"{"z": 1, "a": {"y": 2, "b": 3}}"#.utf8))
    #expect(parsed.text == #"{"z":1,"a":{"y":2,"b":3}}"#)
  }

  @Test func tensorsAndPicturesComeBack() async throws {
    try await withFolder { folder in
      let tensors = ["b": Tensor(shape: [2, 1], values: [1.5, -.infinity]), "a": Tensor(shape: [0], values: [])]
      let file = folder.appendingPathComponent("tensors.safetensors")
      try Safetensors.write(tensors, to: file)
      #expect(try Safetensors.tensors(at: file) == tensors)
      #expect(throws: RestoreError.self) { try Safetensors.pictures(at: file) }
      let pictures = ["p": try picture(3, 5)]
      try Safetensors.write(pictures, to: file)
      #expect(try Safetensors.pictures(at: file) == pictures)
      let whole = try Data(contentsOf: file)
      for count in [0, 4, 9, whole.count - 1] {
        try whole.prefix(count).write(to: file)
        #expect(throws: RestoreError.self) { try Safetensors.pictures(at: file) }
      }
    }
  }

  @Test(arguments: [
    #"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#, #"{"a":{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}}"#,
    #"{"a":{"dtype":"F32","shape":[-2,-1],"data_offsets":[0,8]}}"#,
    #"{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}"#,
    #"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#, "[",
  ])
  func offsetsThatLeaveTheFileAreRefused(header: String) async throws {
    try await withFolder { folder in
      let file = folder.appendingPathComponent("x.safetensors")
      var data = withUnsafeBytes(of: UInt64(header.utf8.count).littleEndian) { Data($0) }
      data += Data(header.utf8) + Data(count: 8)
      try data.write(to: file)
      #expect(throws: RestoreError.self) { try Safetensors.tensors(at: file) }
    }
  }

  @Test func theMeanThatAMirrorImageJoins() throws {
    let values: [Float] = (0..<12).map { Float($0) / 16 }
    let planes = try Planes(values: values, side: 2)
    for (view, order) in [(1, [1, 0, 3, 2]), (2, [2, 3, 0, 1]), (3, [3, 2, 1, 0])] {
      let mirrored = planes.mirrored(view: view)
      #expect(mirrored.values == [0, 4, 8].flatMap { channel in order.map { values[channel + $0] } })
      #expect(mirrored.mirrored(view: view).values == values)
    }
    let mean = planes.mean(of: 2, joinedBy: try Planes(values: values.map { $0 + 0.5 }, side: 2))
    #expect(mean.planes.values == values.map { (2 * $0 + min(1, $0 + 0.5)) / 3 })
    let apart = values.map { Double(min(1, $0 + 0.5) - $0) }
    #expect(abs(mean.difference - apart.map { $0 * $0 }.reduce(0, +) / 12) < 1e-12)
  }

  @Test func aTileOfASmallPictureIsMirrored() throws {
    let small = try picture(3, 2)
    let planes = Planes(small, side: 8)
    let back = planes.pixels(height: 8, width: 8)
    #expect(planes.pixels(height: 3, width: 2) == small)
    for y in 0..<8 {
      for x in 0..<8 {
        let (row, column) = ([0, 1, 2, 2, 1, 0, 0, 1][y], [0, 1, 1, 0][x % 4])
        let (from, to) = (3 * (row * 2 + column), 3 * (y * 8 + x))
        #expect(back.data[to..<to + 3] == small.data[from..<from + 3])
      }
    }
  }

  @Test func tilesThatWereNotChangedBlendToThePicture() throws {
    let given = try picture(150, 130)
    let plan = TilePlan(height: 150, width: 130, tile: 64)
    let tiles = (0..<plan.count).map { given.crop(plan.region($0)) }
    #expect(plan.blend(tiles) == given)
    let region = Region(top: 20, left: 30, bottom: 90, right: 100)
    #expect(plan.blend(tiles, region: region) == given.crop(region))
  }

  @Test func timingsAreNearestRanks() {
    let timing = Perf.Timing((1...200).map(Double.init).shuffled())
    #expect(timing.p50 == 100.5)
    #expect(timing.p90 == 180)
    #expect(timing.p99 == 198)
    #expect(timing.least == 1)
    #expect(Perf.Timing([4]).p99 == 4)
    #expect(Perf.drift([1, 1, 5, 5, 5, 5, 5, 5, 2, 2]) == 2)
  }

  @Test func jobsStayInTheirHome() async throws {
    try await withFolder { home in
      let job = home.appendingPathComponent("home/job")
      for place in ["home/job", "home/program", "elsewhere"] {
        let folder = home.appendingPathComponent(place)
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
      }
      func write(_ text: String) throws { try Data(text.utf8).write(to: job.appendingPathComponent("job.json")) }
      try write(#"{"format": 1, "program": "../program", "limit_s": 5, "measure": {"warm_up": 1, "runs": 2}}"#)
      let read = try Job(reading: job, within: home.appendingPathComponent("home"))
      #expect(read.program.lastPathComponent == "program")
      #expect(read.measure == Job.Measure(warmUp: 1, runs: 2))
      for damage in [
        #"{"format": 1, "program": "../../elsewhere"}"#, #"{"format": 1, "program": "../missing"}"#,
        #"{"format": 2, "program": "../program"}"#, #"{"format": 1, "program": "../program", "etdump_runs": 1}"#,
        #"{"format": 1, "program": "../program", "measure": {"runs": 0}}"#,
      ] {
        try write(damage)
        #expect(throws: RestoreError.self) { try Job(reading: job, within: home.appendingPathComponent("home")) }
      }
    }
  }
}
