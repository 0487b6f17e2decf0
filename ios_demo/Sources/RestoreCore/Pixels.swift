/// A rectangle of a picture in pixels; `bottom` and `right` are outside it.
public struct Region: Equatable, Sendable {
  public let top, left, bottom, right: Int

  public init(top: Int, left: Int, bottom: Int, right: Int) {
    (self.top, self.left, self.bottom, self.right) = (top, left, bottom, right)
  }

  public var height: Int { bottom - top }
  public var width: Int { right - left }
}

/// A picture, height × width × 3, sRGB, 8 bits a channel.
public struct Pixels: Equatable, Sendable {
  public static let largestArea = 100_000_000
  public static let longestSide = 30_000

  public let height: Int
  public let width: Int
  public var data: [UInt8]

  /// Throws `RestoreError.input` for sizes that do not fit the data, and for pictures that are empty or too large.
  public init(height: Int, width: Int, data: [UInt8]) throws {
    let sides = 1...Self.longestSide
    guard sides.contains(height), sides.contains(width), height * width <= Self.largestArea else {
      throw RestoreError.input(
        "the picture has \(width) × \(height) pixels; expected at least one and at most \(Self.largestArea / 1_000_000) million"
      )
    }
    guard data.count == 3 * height * width else {
      throw RestoreError.input("\(data.count) bytes for \(width) × \(height) pixels; expected \(3 * height * width)")
    }
    self.init(unchecked: height, width, data)
  }

  init(unchecked height: Int, _ width: Int, _ data: [UInt8]) {
    self.height = height
    self.width = width
    self.data = data
  }

  /// A part of the picture. `region`: inside it.
  public func crop(_ region: Region) -> Pixels {
    if region.height == height && region.width == width { return self }
    var result: [UInt8] = []
    result.reserveCapacity(3 * region.height * region.width)
    for y in region.top..<region.bottom {
      let start = 3 * (y * width + region.left)
      result += data[start..<start + 3 * region.width]
    }
    return Pixels(unchecked: region.height, region.width, result)
  }

  /// Puts a part into the picture. `patch`: of the region's size.
  public mutating func put(_ patch: Pixels, at region: Region) {
    for y in 0..<region.height {
      let to = 3 * ((region.top + y) * width + region.left)
      let from = 3 * y * region.width
      data.replaceSubrange(to..<to + 3 * region.width, with: patch.data[from..<from + 3 * region.width])
    }
  }
}
