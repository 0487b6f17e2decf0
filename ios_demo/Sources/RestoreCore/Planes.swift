/// A program's picture, float (1, 3, side, side) in [0, 1], in memory that Core ML reads and writes in place.
///
/// Whoever makes one fills it before handing it on; from then on it is only read. That is what makes it safe to share.
public final class Planes: @unchecked Sendable {
  public let side: Int
  /// In floats: from one channel to the next, and from one row to the next. Accelerators pad rows.
  public let planeStride: Int
  public let rowStride: Int
  public let floats: UnsafeMutablePointer<Float>
  private let release: () -> Void

  /// Memory of its own, not filled yet.
  public convenience init(side: Int) {
    let count = 3 * side * side
    let bytes = count * MemoryLayout<Float>.stride
    // A page: accelerators take such memory without a copy.
    let raw = UnsafeMutableRawPointer.allocate(byteCount: bytes, alignment: 16384)
    let floats = raw.bindMemory(to: Float.self, capacity: count)
    self.init(side: side, planeStride: side * side, rowStride: side, floats: floats) { raw.deallocate() }
  }

  /// Somebody else's memory, let go of by `release`.
  public init(
    side: Int, planeStride: Int, rowStride: Int, floats: UnsafeMutablePointer<Float>, release: @escaping () -> Void
  ) {
    self.side = side
    self.planeStride = planeStride
    self.rowStride = rowStride
    self.floats = floats
    self.release = release
  }

  deinit { release() }

  /// A picture of at most `side` × `side` pixels, mirrored at its lower and right edges where it is smaller.
  public convenience init(_ pixels: Pixels, side: Int) {
    self.init(side: side)
    let columns = (0..<side).map { 3 * Self.reflected($0, pixels.width) }
    pixels.data.withUnsafeBufferPointer { data in
      for y in 0..<side {
        let from = 3 * Self.reflected(y, pixels.height) * pixels.width
        var to = y * side
        for column in columns {
          for channel in 0..<3 { floats[channel * planeStride + to] = Float(data[from + column + channel]) / 255 }
          to += 1
        }
      }
    }
  }

  /// With left and right exchanged (view 1), upside down (2), or both (3). Doing it again undoes it.
  public func mirrored(view: Int) -> Planes {
    let result = Planes(side: side)
    for channel in 0..<3 {
      for y in 0..<side {
        let from = floats + channel * planeStride + (view == 1 ? y : side - 1 - y) * rowStride
        let to = result.floats + channel * result.planeStride + y * result.rowStride
        for x in 0..<side { to[x] = from[view == 2 ? x : side - 1 - x] }
      }
    }
    return result
  }

  /// The mean of `count` restorations of a tile, joined by an `other`, which is clipped first, and their mean squared difference.
  public func mean(of count: Int, joinedBy other: Planes) -> (planes: Planes, difference: Double) {
    let (result, count) = (Planes(side: side), Float(count))
    var sum = 0.0
    for channel in 0..<3 {
      for y in 0..<side {
        let first = floats + channel * planeStride + y * rowStride
        let second = other.floats + channel * other.planeStride + y * other.rowStride
        let to = result.floats + channel * result.planeStride + y * result.rowStride
        for x in 0..<side {
          let clipped = min(1, max(0, second[x]))
          let apart = Double(first[x] - clipped)
          sum += apart * apart
          to[x] = (count * first[x] + clipped) / (count + 1)
        }
      }
    }
    return (result, sum / Double(3 * side * side))
  }

  /// As 8-bit pixels, clipped and rounded, cut to a size.
  public func pixels(height: Int, width: Int) -> Pixels {
    let data = [UInt8](unsafeUninitializedCapacity: 3 * height * width) { data, count in
      var to = 0
      for y in 0..<height {
        for x in 0..<width {
          for channel in 0..<3 {
            let value = floats[channel * planeStride + y * rowStride + x] * 255
            // Not a number becomes 0; a broken picture was thrown away before.
            data[to] = UInt8(min(255, max(0, value)).rounded(.toNearestOrEven))
            to += 1
          }
        }
      }
      count = to
    }
    return Pixels(unchecked: height, width, data)
  }

  /// Mean over all values; not finite when one of them is not.
  public var mean: Double {
    var sum = 0.0
    for channel in 0..<3 {
      for y in 0..<side {
        let row = floats + channel * planeStride + y * rowStride
        for x in 0..<side { sum += Double(row[x]) }
      }
    }
    return sum / Double(3 * side * side)
  }

  /// All values, channel by channel, row by row.
  public var values: [Float] {
    var result: [Float] = []
    result.reserveCapacity(3 * side * side)
    for channel in 0..<3 {
      for y in 0..<side {
        result += UnsafeBufferPointer(start: floats + channel * planeStride + y * rowStride, count: side)
      }
    }
    return result
  }

  /// From values in that order. Throws `RestoreError.input` unless there are 3 · side².
  public convenience init(values: [Float], side: Int) throws {
    guard side > 0, values.count == 3 * side * side else {
      throw RestoreError.input("\(values.count) values for a tile; expected \(3 * side * side)")
    }
    self.init(side: side)
    floats.update(from: values, count: values.count)
  }

  private static func reflected(_ index: Int, _ length: Int) -> Int {
    let place = index % (2 * length)
    return place < length ? place : 2 * length - 1 - place
  }
}
