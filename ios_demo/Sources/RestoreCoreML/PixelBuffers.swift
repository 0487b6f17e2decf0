#if canImport(CoreML)
  import CoreVideo
  import RestoreCore

  /// Pictures of programs that take and give images: 8 bits, blue, green, red, alpha.
  enum PixelBuffers {
    /// In memory that every processor of the phone reaches.
    static func make(_ planes: Planes) throws -> CVPixelBuffer {
      var made: CVPixelBuffer?
      let options = [kCVPixelBufferIOSurfacePropertiesKey: [:] as CFDictionary] as CFDictionary
      CVPixelBufferCreate(nil, planes.side, planes.side, kCVPixelFormatType_32BGRA, options, &made)
      guard let made else { throw RestoreError.program("there is no memory for a tile; close other apps") }
      CVPixelBufferLockBaseAddress(made, [])
      defer { CVPixelBufferUnlockBaseAddress(made, []) }
      guard let base = CVPixelBufferGetBaseAddress(made) else { throw RestoreError.program("a tile's memory cannot be reached") }
      for y in 0..<planes.side {
        let row = (base + y * CVPixelBufferGetBytesPerRow(made)).assumingMemoryBound(to: UInt8.self)
        for x in 0..<planes.side {
          for channel in 0..<3 {
            let value = planes.floats[channel * planes.planeStride + y * planes.rowStride + x] * 255
            row[4 * x + 2 - channel] = UInt8(min(255, max(0, value)).rounded(.toNearestOrEven))
          }
          row[4 * x + 3] = 255
        }
      }
      return made
    }

    static func planes(_ pixels: CVPixelBuffer, side: Int) throws -> Planes {
      guard CVPixelBufferGetPixelFormatType(pixels) == kCVPixelFormatType_32BGRA,
        CVPixelBufferGetWidth(pixels) == side, CVPixelBufferGetHeight(pixels) == side
      else {
        throw RestoreError.program("the restored picture has a format that this app does not read; export the bundle again")
      }
      CVPixelBufferLockBaseAddress(pixels, .readOnly)
      defer { CVPixelBufferUnlockBaseAddress(pixels, .readOnly) }
      let planes = Planes(side: side)
      guard let base = CVPixelBufferGetBaseAddress(pixels) else { throw RestoreError.program("the restored picture is empty") }
      for y in 0..<side {
        let row = (base + y * CVPixelBufferGetBytesPerRow(pixels)).assumingMemoryBound(to: UInt8.self)
        for x in 0..<side {
          for channel in 0..<3 {
            planes.floats[channel * planes.planeStride + y * planes.rowStride + x] = Float(row[4 * x + 2 - channel]) / 255
          }
        }
      }
      return planes
    }
  }
#endif
