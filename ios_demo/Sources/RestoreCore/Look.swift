/// The whole picture made small, to judge what tiles must agree on; bit by bit as Pillow's box filter does it in Python.
public enum Look {
  /// Height and width of a picture made small enough that its longer side is a tile's.
  public static func size(height: Int, width: Int, tile: Int) -> (height: Int, width: Int) {
    let scale = Double(tile) / Double(max(height, width))
    return (max(1, Int(Double(height) * scale + 0.5)), max(1, Int(Double(width) * scale + 0.5)))
  }

  /// The picture averaged down to `size`.
  public static func shrink(_ picture: Pixels, tile: Int) -> Pixels {
    let size = size(height: picture.height, width: picture.width, tile: tile)
    let across = boxes(from: picture.width, to: size.width)
    let down = boxes(from: picture.height, to: size.height)
    let rowBytes = 3 * size.width
    var narrow = [UInt8](repeating: 0, count: picture.height * rowBytes)
    var small = [UInt8](repeating: 0, count: size.height * rowBytes)
    picture.data.withUnsafeBufferPointer { data in
      narrow.withUnsafeMutableBufferPointer { narrow in
        for y in 0..<picture.height {
          for (x, box) in across.enumerated() {
            for channel in 0..<3 {
              var sum = half
              for (i, weight) in box.weights.enumerated() {
                sum += weight * Int32(data[3 * (y * picture.width + box.first + i) + channel])
              }
              narrow[y * rowBytes + 3 * x + channel] = rounded(sum)
            }
          }
        }
      }
    }
    narrow.withUnsafeBufferPointer { narrow in
      small.withUnsafeMutableBufferPointer { small in
        for (y, box) in down.enumerated() {
          for x in 0..<rowBytes {
            var sum = half
            for (i, weight) in box.weights.enumerated() { sum += weight * Int32(narrow[(box.first + i) * rowBytes + x]) }
            small[y * rowBytes + x] = rounded(sum)
          }
        }
      }
    }
    return Pixels(unchecked: size.height, size.width, small)
  }

  /// What one output pixel is averaged from: fixed-point weights of 22 bits.
  private struct Box {
    let first: Int
    let weights: [Int32]
  }

  private static let bits: Int32 = 22
  private static let half: Int32 = 1 << (bits - 1)

  private static func rounded(_ sum: Int32) -> UInt8 { UInt8(clamping: sum >> bits) }

  private static func boxes(from: Int, to: Int) -> [Box] {
    let scale = Double(from) / Double(to)
    let filter = max(scale, 1)
    return (0..<to).map { out in
      let centre = (Double(out) + 0.5) * scale
      let first = max(0, Int(centre - 0.5 * filter + 0.5))
      let last = min(from, Int(centre + 0.5 * filter + 0.5))
      let inside: [Double] = (first..<last).map { i in
        let place = (Double(i) - centre + 0.5) * (1 / filter)
        return place > -0.5 && place <= 0.5 ? 1 : 0
      }
      let sum = inside.reduce(0, +)
      let weights = inside.map { Int32(0.5 + (sum != 0 ? $0 / sum : $0) * Double(1 << bits)) }
      return Box(first: first, weights: weights)
    }
  }
}
