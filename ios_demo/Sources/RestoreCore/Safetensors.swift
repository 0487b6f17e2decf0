import Foundation

/// A named array of a safetensors file.
public struct Tensor: Equatable, Sendable {
  public let shape: [Int]
  public let values: [Float]

  public init(shape: [Int], values: [Float]) {
    self.shape = shape
    self.values = values
  }
}

/// Safetensors files of float32, or of bytes for pictures, read defensively: no offset leaves the file, no shape overflows.
public enum Safetensors {
  static let mostHeaderBytes = 1 << 20

  /// float32 arrays by name. Throws `RestoreError.input`.
  public static func tensors(at file: URL) throws -> [String: Tensor] {
    try read(file, type: "F32", width: 4) { shape, bytes, _ in
      let values = (0..<bytes.count / 4).map { i in
        Float(bitPattern: UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 4 * i, as: UInt32.self)))
      }
      return Tensor(shape: shape, values: values)
    }
  }

  /// Pictures, uint8 height × width × 3, by name. Throws `RestoreError.input`.
  public static func pictures(at file: URL) throws -> [String: Pixels] {
    try read(file, type: "U8", width: 1) { shape, bytes, name in
      guard shape.count == 3, shape[2] == 3 else {
        throw RestoreError.input("\(file.lastPathComponent): \(name) is no picture of height × width × 3")
      }
      return try Pixels(height: shape[0], width: shape[1], data: [UInt8](bytes))
    }
  }

  /// Writes whole or not at all.
  public static func write(_ tensors: [String: Tensor], to file: URL) throws {
    try write(
      tensors.sorted { $0.key < $1.key }.map { name, tensor in
        (name, "F32", tensor.shape, tensor.values.map(\.bitPattern.littleEndian).withUnsafeBytes { Data($0) })
      }, file)
  }

  /// Writes whole or not at all.
  public static func write(_ pictures: [String: Pixels], to file: URL) throws {
    try write(
      pictures.sorted { $0.key < $1.key }.map { ($0.key, "U8", [$0.value.height, $0.value.width, 3], Data($0.value.data)) },
      file)
  }

  private static func read<Value>(
    _ file: URL, type: String, width: Int, _ take: ([Int], UnsafeRawBufferPointer, String) throws -> Value
  ) throws -> [String: Value] {
    let name = file.lastPathComponent
    guard let data = try? Data(contentsOf: file, options: .mappedIfSafe) else {
      throw RestoreError.input("\(name) cannot be read")
    }
    return try data.withUnsafeBytes { bytes in
      guard bytes.count >= 8 else { throw RestoreError.input("\(name) is no whole safetensors file") }
      let length = UInt64(littleEndian: bytes.loadUnaligned(as: UInt64.self))
      guard length <= mostHeaderBytes, 8 + Int(length) <= bytes.count else {
        throw RestoreError.input("\(name) is no whole safetensors file")
      }
      let header = try JSON(parsing: Data(bytes[8..<8 + Int(length)]))
      let body = UnsafeRawBufferPointer(rebasing: bytes[(8 + Int(length))...])
      var result: [String: Value] = [:]
      for (key, entry) in header.asObject ?? [] where key != "__metadata__" {
        guard entry["dtype"]?.asString == type, let shape = entry["shape"]?.asInts,
          let offsets = entry["data_offsets"]?.asInts, offsets.count == 2
        else { throw RestoreError.input("\(name): \(key) is not of type \(type)") }
        guard let size = product(shape + [width]), 0 <= offsets[0], offsets[0] <= offsets[1],
          offsets[1] <= body.count, offsets[1] - offsets[0] == size
        else { throw RestoreError.input("\(name): the offsets of \(key) do not fit the file or its shape") }
        result[key] = try take(shape, UnsafeRawBufferPointer(rebasing: body[offsets[0]..<offsets[1]]), key)
      }
      return result
    }
  }

  private static func product(_ sides: [Int]) -> Int? {
    var result = 1
    for side in sides {
      let (value, overflow) = result.multipliedReportingOverflow(by: side)
      guard side >= 0, !overflow else { return nil }
      result = value
    }
    return result
  }

  private static func write(_ entries: [(name: String, type: String, shape: [Int], data: Data)], _ file: URL) throws {
    var offset = 0
    let header = entries.map { entry -> (String, JSON) in
      let end = offset + entry.data.count
      defer { offset = end }
      return (
        entry.name,
        .object([
          ("dtype", .string(entry.type)), ("shape", .array(entry.shape.map(JSON.integer))),
          ("data_offsets", .array([.integer(offset), .integer(end)])),
        ])
      )
    }
    var text = JSON.object(header.map { (key: $0.0, value: $0.1) }).data
    text.append(contentsOf: [UInt8](repeating: 0x20, count: (8 - text.count % 8) % 8))
    var data = withUnsafeBytes(of: UInt64(text.count).littleEndian) { Data($0) }
    data.append(text)
    for entry in entries { data.append(entry.data) }
    try Files.write(data, to: file)
  }
}
