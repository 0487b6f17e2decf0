import Foundation

/// A JSON value whose objects keep their order: the order of the degradation tree is the order of the experts.
public enum JSON: Equatable, Sendable {
  case null
  case bool(Bool)
  case integer(Int)
  case number(Double)
  case string(String)
  case array([JSON])
  case object([(key: String, value: JSON)])

  public static func == (one: JSON, other: JSON) -> Bool {
    switch (one, other) {
    case (.null, .null): true
    case (.bool(let a), .bool(let b)): a == b
    case (.integer(let a), .integer(let b)): a == b
    case (.number(let a), .number(let b)): a == b
    case (.string(let a), .string(let b)): a == b
    case (.array(let a), .array(let b)): a == b
    case (.object(let a), .object(let b)):
      a.count == b.count && zip(a, b).allSatisfy { $0.key == $1.key && $0.value == $1.value }
    default: false
    }
  }

  /// Parses UTF-8 text. Throws `RestoreError.input`.
  public init(parsing data: Data) throws {
    var parser = JSONParser(bytes: [UInt8](data))
    self = try parser.document()
  }

  /// A value of an object; nil where it is missing or null, and for what is no object.
  public subscript(key: String) -> JSON? {
    guard case .object(let entries) = self else { return nil }
    let value = entries.first { $0.key == key }?.value
    return value == .null ? nil : value
  }

  public var asBool: Bool? {
    if case .bool(let value) = self { value } else { nil }
  }

  public var asString: String? {
    if case .string(let value) = self { value } else { nil }
  }

  public var asInt: Int? {
    switch self {
    case .integer(let value): value
    case .number(let value): Int(exactly: value)
    default: nil
    }
  }

  public var asDouble: Double? {
    switch self {
    case .integer(let value): Double(value)
    case .number(let value): value
    default: nil
    }
  }

  public var asArray: [JSON]? {
    if case .array(let values) = self { values } else { nil }
  }

  public var asObject: [(key: String, value: JSON)]? {
    if case .object(let entries) = self { entries } else { nil }
  }

  public var asDoubles: [Double]? {
    guard let values = asArray else { return nil }
    let numbers = values.compactMap(\.asDouble)
    return numbers.count == values.count ? numbers : nil
  }

  public var asInts: [Int]? {
    guard let values = asArray else { return nil }
    let numbers = values.compactMap(\.asInt)
    return numbers.count == values.count ? numbers : nil
  }

  public var asStrings: [String]? {
    guard let values = asArray else { return nil }
    let strings = values.compactMap(\.asString)
    return strings.count == values.count ? strings : nil
  }

  /// A finite number as it is, anything else as null: JSON has no NaN.
  public static func finite(_ value: Double?) -> JSON {
    guard let value, value.isFinite else { return .null }
    return .number(value)
  }

  /// UTF-8 text on one line.
  public var data: Data { Data(text.utf8) }

  public var text: String {
    switch self {
    case .null: "null"
    case .bool(let value): value ? "true" : "false"
    case .integer(let value): String(value)
    case .number(let value): value.isFinite ? "\(value)" : "null"
    case .string(let value): Self.quoted(value)
    case .array(let values): "[" + values.map(\.text).joined(separator: ",") + "]"
    case .object(let entries):
      "{" + entries.map { Self.quoted($0.key) + ":" + $0.value.text }.joined(separator: ",") + "}"
    }
  }

  private static func quoted(_ text: String) -> String {
    var result = "\""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\"": result += "\\\""
      case "\\": result += "\\\\"
      case "\u{0}"..."\u{1F}":
        let digits = String(scalar.value, radix: 16)
        result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result + "\""
  }
}

/// Recursive descent over bytes (RFC 8259). Depth is limited: the file may come from anywhere.
private struct JSONParser {
  let bytes: [UInt8]
  var at = 0

  static let deepest = 64

  mutating func document() throws -> JSON {
    let result = try value(depth: 0)
    skipSpace()
    guard at == bytes.count else { throw bad("text behind the end") }
    return result
  }

  private mutating func value(depth: Int) throws -> JSON {
    guard depth < Self.deepest else { throw bad("nesting of more than \(Self.deepest)") }
    skipSpace()
    switch peek {
    case UInt8(ascii: "{"): return try object(depth: depth)
    case UInt8(ascii: "["): return try array(depth: depth)
    case UInt8(ascii: "\""): return .string(try string())
    case UInt8(ascii: "t"): return try word("true", .bool(true))
    case UInt8(ascii: "f"): return try word("false", .bool(false))
    case UInt8(ascii: "n"): return try word("null", .null)
    default: return try number()
    }
  }

  private mutating func object(depth: Int) throws -> JSON {
    at += 1
    var entries: [(key: String, value: JSON)] = []
    if take("}") { return .object(entries) }
    repeat {
      skipSpace()
      guard peek == UInt8(ascii: "\"") else { throw bad("no name") }
      let key = try string()
      guard take(":") else { throw bad("no colon") }
      entries.append((key, try value(depth: depth + 1)))
    } while take(",")
    guard take("}") else { throw bad("an object without end") }
    return .object(entries)
  }

  private mutating func array(depth: Int) throws -> JSON {
    at += 1
    var values: [JSON] = []
    if take("]") { return .array(values) }
    repeat { values.append(try value(depth: depth + 1)) } while take(",")
    guard take("]") else { throw bad("an array without end") }
    return .array(values)
  }

  private mutating func string() throws -> String {
    at += 1
    var units: [UInt8] = []
    while let byte = peek {
      at += 1
      switch byte {
      case UInt8(ascii: "\""):
        guard let text = String(validating: units, as: UTF8.self) else { throw bad("text that is not UTF-8") }
        return text
      case UInt8(ascii: "\\"): units += try escaped()
      case 0..<0x20: throw bad("a control character")
      default: units.append(byte)
      }
    }
    throw bad("a string without end")
  }

  private mutating func escaped() throws -> [UInt8] {
    guard let byte = peek else { throw bad("a string without end") }
    at += 1
    switch byte {
    case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return [byte]
    case UInt8(ascii: "b"): return [8]
    case UInt8(ascii: "f"): return [12]
    case UInt8(ascii: "n"): return [10]
    case UInt8(ascii: "r"): return [13]
    case UInt8(ascii: "t"): return [9]
    case UInt8(ascii: "u"):
      var code = try hex()
      if (0xD800..<0xDC00).contains(code), peek == UInt8(ascii: "\\") {
        at += 1
        guard peek == UInt8(ascii: "u") else { throw bad("half a character") }
        at += 1
        let low = try hex()
        guard (0xDC00..<0xE000).contains(low) else { throw bad("half a character") }
        code = 0x10000 + (code - 0xD800) << 10 + (low - 0xDC00)
      }
      guard let scalar = Unicode.Scalar(code) else { throw bad("half a character") }
      return Array(String(Character(scalar)).utf8)
    default: throw bad("an unknown escape")
    }
  }

  private mutating func hex() throws -> UInt32 {
    guard at + 4 <= bytes.count,
      let digits = String(validating: bytes[at..<at + 4], as: UTF8.self),
      digits.allSatisfy(\.isHexDigit),
      let code = UInt32(digits, radix: 16)
    else { throw bad("an unknown escape") }
    at += 4
    return code
  }

  private mutating func number() throws -> JSON {
    let start = at
    while let byte = peek, "+-.0123456789eE".utf8.contains(byte) { at += 1 }
    let text = String(decoding: bytes[start..<at], as: UTF8.self)
    let digits = text.drop { $0 == "-" }
    guard let first = digits.first, first.isNumber, !(first == "0" && digits.dropFirst().first?.isNumber == true) else {
      throw bad("an unexpected character")
    }
    if let value = Int(text) { return .integer(value) }
    guard let value = Double(text), value.isFinite else { throw bad("a number out of range") }
    return .number(value)
  }

  private mutating func word(_ text: String, _ value: JSON) throws -> JSON {
    guard bytes[at...].starts(with: text.utf8) else { throw bad("an unexpected word") }
    at += text.utf8.count
    return value
  }

  private var peek: UInt8? { at < bytes.count ? bytes[at] : nil }

  private mutating func take(_ character: Unicode.Scalar) -> Bool {
    skipSpace()
    guard peek == UInt8(ascii: character) else { return false }
    at += 1
    return true
  }

  private mutating func skipSpace() {
    while let byte = peek, byte == 0x20 || (0x09...0x0D).contains(byte) { at += 1 }
  }

  private func bad(_ what: String) -> RestoreError { .input("not valid JSON: \(what) at byte \(at)") }
}
