import Foundation
import Testing

@testable import RestoreCore

struct BundleTests {
  @Test func filesAreCheckedWhenTheyAreAskedFor() async throws {
    try await withFolder { folder in
      try writeBundle(folder)
      let bundle = try RestoreBundle(opening: folder)
      let program = try bundle.program("coreml-fp16")
      #expect(try bundle.folder(of: program).lastPathComponent == "coreml-fp16")
      #expect(try bundle.programs(of: "coreml") == [program])
      let file = folder.appendingPathComponent(program.files[0].path)
      for damage in ["abd", "abcd", ""] {
        try Data(damage.utf8).write(to: file)
        #expect(throws: RestoreError.self) { try bundle.folder(of: program) }
      }
      try FileManager.default.removeItem(at: file)
      #expect(throws: RestoreError.self) { try bundle.folder(of: program) }
    }
  }

  @Test func aLinkOutOfTheBundleIsRefused() async throws {
    try await withFolder { folder in
      let inside = folder.appendingPathComponent("bundle")
      try writeBundle(inside)
      let bundle = try RestoreBundle(opening: inside)
      let file = inside.appendingPathComponent(bundle.manifest.programs[0].files[0].path)
      let outside = folder.appendingPathComponent("outside")
      try FileManager.default.moveItem(at: file, to: outside)
      try FileManager.default.createSymbolicLink(at: file, withDestinationURL: outside)
      #expect(throws: RestoreError.self) { try bundle.folder(of: bundle.manifest.programs[0]) }
    }
  }

  @Test(arguments: [
    (#""format": 1"#, #""format": 2"#), (#""tile": 64"#, #""tile": 65"#), (#""tile": 64"#, #""tile": 1e9"#),
    ("programs/coreml-fp16/student.mlpackage/model", "programs/coreml-fp16/../../../secret"),
    ("programs/coreml-fp16/student.mlpackage/model", "/etc/passwd"),
    ("programs/coreml-fp16/student.mlpackage/model", "programs/other/model"),
    (#""bytes": 3"#, #""bytes": -3"#), ("ba7816bf", "BA7816BF"), (#""precision": "fp16""#, #""precision": "../x""#),
    (#""rank": 4"#, #""rank": 0"#), (#""softness": 0.7"#, #""softness": 0"#), (#""snow", "haze""#, #""rain", "haze""#),
    (#""top": 4"#, #""top": 4, "variance": {"rain": "much"}"#), (#""top": 4"#, #""top": 4, "likely": {"haze": "often"}"#),
    (#""top": 4"#, #""top": 4, "certain": {"noise": "quite"}"#), (#""top": 4"#, #""top": 4, "certain": {"noise": 0}"#),
    (#""routing""#, #""roads""#), ("}]}]}", "}]}]"),
    (#""licence""#, "\u{1}"),
  ])
  func damagedManifestsAreRefused(part: String, damage: String) async throws {
    try await withFolder { folder in
      #expect(manifestText.contains(part))
      try writeBundle(folder, manifest: manifestText.replacingOccurrences(of: part, with: damage))
      #expect(throws: RestoreError.self) { try RestoreBundle(opening: folder) }
    }
  }

  @Test func whatIsMissingIsSaid() async throws {
    try await withFolder { folder in
      #expect(throws: RestoreError.self) { try RestoreBundle(opening: folder) }
      try writeBundle(folder)
      let bundle = try RestoreBundle(opening: folder)
      do {
        _ = try bundle.programs(of: "tensorrt")
        Issue.record("there is no such program")
      } catch {
        #expect("\(error)".contains("coreml-fp16"))
      }
    }
  }

  @Test func nothingInAHugeOrDeepManifestStopsTheReader() async throws {
    try await withFolder { folder in
      try writeBundle(folder, manifest: String(repeating: "[", count: 100_000))
      #expect(throws: RestoreError.self) { try RestoreBundle(opening: folder) }
      try writeBundle(folder, manifest: String(repeating: " ", count: 2 << 20))
      #expect(throws: RestoreError.self) { try RestoreBundle(opening: folder) }
    }
  }

  @Test func sha256IsThatOfTheStandard() {
    #expect(SHA256.hex("".utf8) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    #expect(SHA256.hex("abc".utf8) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    let million = Array(repeating: UInt8(ascii: "a"), count: 1_000_000)
    #expect(SHA256.hex(million) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0")
    // In pieces of every size around a block's, it is the same.
    for size in [1, 55, 56, 63, 64, 65, 119, 1000] {
      var hash = SHA256()
      for start in stride(from: 0, to: 3000, by: size) {
        million[start..<min(start + size, 3000)].withUnsafeBytes { hash.update($0) }
      }
      #expect(hash.finish() == SHA256.hex(million[..<3000]))
    }
  }
}
