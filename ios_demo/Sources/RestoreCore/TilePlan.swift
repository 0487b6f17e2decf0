import Foundation

/// Where overlapping tiles of a program's fixed size lie on a picture; a smaller picture is mirrored up to one tile.
public struct TilePlan: Equatable, Sendable {
  public static let overlap = 32
  /// Tiles start on the grid of JPEG's blocks.
  static let grid = 16

  public let height: Int
  public let width: Int
  public let tile: Int
  public let rows: [Int]
  public let columns: [Int]
  /// Blending weights down every row of tiles and across every column; at each pixel they sum to 1.
  public let down: [[Float]]
  public let across: [[Float]]

  /// The fewest tiles on the grid that cover the picture with at least `overlap` pixels shared, spread evenly; the last may
  /// reach over its edge.
  public init(height: Int, width: Int, tile: Int, overlap: Int = TilePlan.overlap) {
    self.height = height
    self.width = width
    self.tile = tile
    rows = Self.starts(height, tile, overlap)
    columns = Self.starts(width, tile, overlap)
    down = Self.ramps(rows, tile, height)
    across = Self.ramps(columns, tile, width)
  }

  public var count: Int { rows.count * columns.count }

  /// The part of the picture that a tile covers.
  public func region(_ index: Int) -> Region {
    let (row, column) = index.quotientAndRemainder(dividingBy: columns.count)
    let (top, left) = (rows[row], columns[column])
    return Region(top: top, left: left, bottom: min(top + tile, height), right: min(left + tile, width))
  }

  /// Every tile's share of the picture: its blending weights over the picture's pixels. They sum to 1.
  public var areas: [Double] {
    func sums(_ ramps: [[Float]]) -> [Double] { ramps.map { $0.reduce(0) { $0 + Double($1) } } }
    let horizontal = sums(across)
    return sums(down).flatMap { vertical in horizontal.map { vertical * $0 / Double(height * width) } }
  }

  /// The tiles that cover a part of `region`, in order.
  public func overlapping(_ region: Region) -> [Int] {
    let hit = rows.indices.filter { rows[$0] < region.bottom && rows[$0] + tile > region.top }
    let across = columns.indices.filter { columns[$0] < region.right && columns[$0] + tile > region.left }
    return hit.flatMap { row in across.map { row * columns.count + $0 } }
  }

  /// The picture that tiles make together, or the part of it in `region`. `tiles`: each of its region's size.
  public func blend(_ tiles: [Pixels], region: Region? = nil) -> Pixels {
    let region = region ?? Region(top: 0, left: 0, bottom: height, right: width)
    if count == 1 { return tiles[0].crop(region) }
    var total = [Float](repeating: 0, count: 3 * region.height * region.width)
    total.withUnsafeMutableBufferPointer { total in
      for index in overlapping(region) {
        add(tiles[index], index, to: total, of: region)
      }
    }
    return Pixels(unchecked: region.height, region.width, total.map { UInt8($0.rounded(.toNearestOrEven)) })
  }

  private func add(_ tile: Pixels, _ index: Int, to total: UnsafeMutableBufferPointer<Float>, of region: Region) {
    let (row, column) = index.quotientAndRemainder(dividingBy: columns.count)
    let own = self.region(index)
    let (left, right) = (max(own.left, region.left), min(own.right, region.right))
    tile.data.withUnsafeBufferPointer { data in
      for y in max(own.top, region.top)..<min(own.bottom, region.bottom) {
        let vertical = down[row][y - own.top]
        var to = 3 * ((y - region.top) * region.width + left - region.left)
        var from = 3 * ((y - own.top) * own.width + left - own.left)
        across[column].withUnsafeBufferPointer { weights in
          for x in left..<right {
            let weight = vertical * weights[x - own.left]
            for channel in 0..<3 { total[to + channel] += weight * Float(data[from + channel]) }
            to += 3
            from += 3
          }
        }
      }
    }
  }

  private static func starts(_ length: Int, _ tile: Int, _ overlap: Int) -> [Int] {
    if length <= tile { return [0] }
    let (cells, wide, shared) = ((length + grid - 1) / grid, tile / grid, (overlap + grid - 1) / grid)
    let count = (cells - shared + wide - shared - 1) / (wide - shared)
    return (0..<count).map { (cells - wide) * $0 / (count - 1) * grid }
  }

  /// Raised cosines over what a tile shares with each neighbour, divided by their sum, where more than two meet.
  private static func ramps(_ starts: [Int], _ tile: Int, _ length: Int) -> [[Float]] {
    var total = [Double](repeating: 0, count: length)
    let raw = starts.enumerated().map { position, start in
      var weights = [Double](repeating: 1, count: min(tile, length - start))
      if position > 0 {
        let shared = starts[position - 1] + tile - start
        for i in 0..<shared { weights[i] = rise(i, shared) }
      }
      if position + 1 < starts.count {
        let shared = start + tile - starts[position + 1]
        for i in 0..<shared { weights[tile - 1 - i] = min(weights[tile - 1 - i], rise(i, shared)) }
      }
      for i in weights.indices { total[start + i] += weights[i] }
      return weights
    }
    return zip(starts, raw).map { start, weights in weights.indices.map { Float(weights[$0] / total[start + $0]) } }
  }

  private static func rise(_ position: Int, _ length: Int) -> Double {
    0.5 - 0.5 * cos(.pi * (Double(position) + 0.5) / Double(length))
  }
}
