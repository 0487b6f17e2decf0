/// One file of a bundle: its path below the bundle, its size and its SHA-256.
public struct File: Equatable, Sendable {
  public let path: String
  public let bytes: Int
  public let sha256: String

  init(_ json: JSON, _ place: String) throws {
    path = try json.string("path", place)
    bytes = try json.int("bytes", place)
    sha256 = try json.string("sha256", place)
    guard Self.isInside(path) else {
      throw RestoreError.bundle("\(place): path \(path) leaves the bundle; expected a relative path without '..'")
    }
    guard bytes >= 0, sha256.utf8.count == 64, sha256.allSatisfy({ "0123456789abcdef".contains($0) }) else {
      throw RestoreError.bundle("\(place): \(path) needs a size of 0 or more and a SHA-256 in hex")
    }
  }

  private static func isInside(_ path: String) -> Bool {
    let parts = path.split(separator: "/", omittingEmptySubsequences: true)
    return !parts.isEmpty && !path.hasPrefix("/") && !parts.contains("..") && parts != ["."]
      && !path.unicodeScalars.contains { $0 == "\\" || $0 == ":" || $0.value < 0x20 }
  }
}

/// Maps a program's raw predicted quality q to slope · q + offset.
public struct Calibration: Equatable, Sendable {
  public let slope: Double
  public let offset: Double

  public init(slope: Double = 1, offset: Double = 0) {
    self.slope = slope
    self.offset = offset
  }

  init(_ json: JSON?) { self.init(slope: json?["slope"]?.asDouble ?? 1, offset: json?["offset"]?.asDouble ?? 0) }

  /// Calibrated quality, clipped to [0, 1].
  public func apply(_ quality: Double) -> Double { min(1, max(0, slope * quality + offset)) }
}

/// One exported artifact for one target and precision.
public struct Program: Equatable, Sendable {
  public let target: String
  public let precision: String
  public let files: [File]
  public let boundaryBytes: [String: Int]
  public let calibration: Calibration
  public let speed: String

  /// target-precision, also its folder's name.
  public var name: String { "\(target)-\(precision)" }

  /// SHA-256 over the hashes of its files, so that another export is told apart; as in perf.json.
  public var digest: String { SHA256.hex(files.map(\.sha256).joined().utf8) }

  init(_ json: JSON, _ place: String) throws {
    target = try json.string("target", place)
    precision = try json.string("precision", place)
    files = try json.array("files", place).enumerated().map { try File($1, "\(place).files.\($0)") }
    let bytes = json["boundary_bytes"]?.asObject ?? []
    boundaryBytes = Dictionary(bytes.compactMap { entry in entry.value.asInt.map { (entry.key, $0) } }) { first, _ in first }
    calibration = Calibration(json["calibration"])
    speed = json["speed"]?.asString ?? "unmeasured"
    let letters = name.unicodeScalars.allSatisfy { "abcdefghijklmnopqrstuvwxyz0123456789-_.".unicodeScalars.contains($0) }
    guard letters, !name.hasPrefix(".") else { throw RestoreError.bundle("\(place): \(name) is no program's name") }
    guard files.allSatisfy({ $0.path.hasPrefix("programs/\(name)/") }) else {
      throw RestoreError.bundle("\(place): a file of \(name) is not in programs/\(name)")
    }
  }
}

/// Measured milliseconds of one program on one class of device.
public struct Profile: Equatable, Sendable {
  public let device: String
  public let program: String
  public let encode: Estimate
  public let refine: Estimate

  init(_ json: JSON, _ place: String) throws {
    func estimate(_ key: String) throws -> Estimate {
      guard let pair = json[key]?.asDoubles, pair.count == 2 else {
        throw RestoreError.bundle("\(place).\(key) is no mean and deviation")
      }
      return Estimate(mean: pair[0], deviation: pair[1])
    }
    device = try json.string("device", place)
    program = try json.string("program", place)
    encode = try estimate("encode_ms")
    refine = try estimate("refine_ms")
  }
}

/// What bundle.json says, as far as a phone needs it; entries that this reader does not know are left alone.
public struct Manifest: Equatable, Sendable {
  public static let format = 1

  /// The student's size, such as `small`.
  public let student: String
  public let rank: Int
  public let tile: Int
  public let routing: Routing
  public let programs: [Program]
  public let profiles: [Profile]
  public let licence: String

  init(_ json: JSON) throws {
    guard json["format"]?.asInt == Self.format else {
      let found = json["format"]?.text.prefix(20) ?? "none"
      throw RestoreError.bundle("bundle.json has format \(found); this app reads \(Self.format): export it again")
    }
    guard let info = json["student"], let routes = json["routing"] else {
      throw RestoreError.bundle("bundle.json lacks student or routing; export it again")
    }
    student = try info.string("size", "student")
    rank = try info.int("rank", "student")
    tile = try json.int("tile", "bundle.json")
    routing = try Routing(routes)
    programs = try json.array("programs", "bundle.json").enumerated().map { try Program($1, "programs.\($0)") }
    profiles = try (json["profiles"]?.asArray ?? []).enumerated().map { try Profile($1, "profiles.\($0)") }
    licence = try json.string("licence", "bundle.json")
    guard (64...4096).contains(tile), tile % 16 == 0 else {
      throw RestoreError.bundle("bundle.json: tile is \(tile); expected a multiple of 16 from 64 to 4096")
    }
    guard (1...1024).contains(rank) else { throw RestoreError.bundle("bundle.json: rank is \(rank)") }
  }
}

extension JSON {
  fileprivate func string(_ key: String, _ place: String) throws -> String {
    guard let value = self[key]?.asString else { throw RestoreError.bundle("\(place).\(key) is missing or no text") }
    return value
  }

  fileprivate func int(_ key: String, _ place: String) throws -> Int {
    guard let value = self[key]?.asInt else { throw RestoreError.bundle("\(place).\(key) is missing or no whole number") }
    return value
  }

  fileprivate func array(_ key: String, _ place: String) throws -> [JSON] {
    guard let value = self[key]?.asArray else { throw RestoreError.bundle("\(place).\(key) is missing or no list") }
    return value
  }
}
