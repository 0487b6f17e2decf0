import CoreImage
import ImageIO
import Photos
import RestoreCore
import UniformTypeIdentifiers

/// A photo as pixels that stand upright in sRGB, and what saving needs to give back what came in.
struct Photo: Sendable {
  let pixels: Pixels
  private let original: Data

  /// Throws `RestoreError.input` for what is no picture, or too large a one.
  init(decoding data: Data) throws {
    guard let source = CGImageSourceCreateWithData(data as CFData, nil),
      let facts = CGImageSourceCopyPropertiesAtIndex(source, 0, nil) as? [CFString: Any],
      let width = facts[kCGImagePropertyPixelWidth] as? Int, let height = facts[kCGImagePropertyPixelHeight] as? Int
    else { throw RestoreError.input("This file is no picture, or is damaged.") }
    // Before decoding: a small file may claim any size.
    guard width > 0, height > 0, max(width, height) <= Pixels.longestSide, width * height <= Pixels.largestArea else {
      throw RestoreError.input("This picture has \(width) × \(height) pixels; at most 100 million can be restored.")
    }
    guard let image = CIImage(data: data, options: [.applyOrientationProperty: true]),
      let colours = CGColorSpace(name: CGColorSpace.sRGB)
    else { throw RestoreError.input("This picture cannot be decoded.") }
    let extent = image.extent.integral
    let (columns, rows) = (Int(extent.width), Int(extent.height))
    var rgba = [UInt8](repeating: 0, count: 4 * columns * rows)
    rgba.withUnsafeMutableBytes { bytes in
      guard let base = bytes.baseAddress else { return }
      CIContext().render(
        image, toBitmap: base, rowBytes: 4 * columns, bounds: extent, format: .RGBA8, colorSpace: colours)
    }
    let data3 = [UInt8](unsafeUninitializedCapacity: 3 * columns * rows) { rgb, count in
      for pixel in 0..<columns * rows {
        for channel in 0..<3 { rgb[3 * pixel + channel] = rgba[4 * pixel + channel] }
      }
      count = 3 * columns * rows
    }
    pixels = try Pixels(height: rows, width: columns, data: data3)
    original = data
  }

  /// HEIC where the original is, JPEG otherwise, with the original's metadata; upright, so without a rotation.
  func encoded(_ restored: Pixels) throws -> Data {
    let image = try restored.image()
    guard let source = CGImageSourceCreateWithData(original as CFData, nil) else { throw failed }
    let isHEIC = (CGImageSourceGetType(source) as String?) == UTType.heic.identifier
    let type = (isHEIC ? UTType.heic : UTType.jpeg).identifier as CFString
    let data = NSMutableData()
    guard let destination = CGImageDestinationCreateWithData(data, type, 1, nil) else { throw failed }
    var facts = CGImageSourceCopyPropertiesAtIndex(source, 0, nil) as? [CFString: Any] ?? [:]
    facts[kCGImagePropertyOrientation] = CGImagePropertyOrientation.up.rawValue
    if var tiff = facts[kCGImagePropertyTIFFDictionary] as? [CFString: Any] {
      tiff[kCGImagePropertyTIFFOrientation] = CGImagePropertyOrientation.up.rawValue
      facts[kCGImagePropertyTIFFDictionary] = tiff
    }
    if var exif = facts[kCGImagePropertyExifDictionary] as? [CFString: Any] {
      exif[kCGImagePropertyExifPixelXDimension] = restored.width
      exif[kCGImagePropertyExifPixelYDimension] = restored.height
      facts[kCGImagePropertyExifDictionary] = exif
    }
    // Of the original's pixels, no longer of these.
    for key in [kCGImagePropertyPixelWidth, kCGImagePropertyPixelHeight, kCGImagePropertyDepth, kCGImagePropertyProfileName] {
      facts[key] = nil
    }
    facts[kCGImageDestinationLossyCompressionQuality] = 0.95
    CGImageDestinationAddImage(destination, image, facts as CFDictionary)
    guard CGImageDestinationFinalize(destination) else { throw failed }
    return data as Data
  }

  private var failed: RestoreError { .input("The picture cannot be written.") }
}

extension Pixels {
  /// For the screen and for files, in sRGB.
  func image() throws -> CGImage {
    guard let provider = CGDataProvider(data: Data(data) as CFData), let colours = CGColorSpace(name: CGColorSpace.sRGB),
      let image = CGImage(
        width: width, height: height, bitsPerComponent: 8, bitsPerPixel: 24, bytesPerRow: 3 * width, space: colours,
        bitmapInfo: CGBitmapInfo(rawValue: CGImageAlphaInfo.none.rawValue), provider: provider, decode: nil,
        shouldInterpolate: true, intent: .defaultIntent)
    else { throw RestoreError.input("There is no memory to show the picture.") }
    return image
  }
}

/// The user's photos, to add to and nothing else.
enum PhotoLibrary {
  /// Throws `RestoreError.input` without permission.
  static func save(_ data: Data) async throws {
    let permission = await PHPhotoLibrary.requestAuthorization(for: .addOnly)
    guard permission == .authorized || permission == .limited else {
      throw RestoreError.input("The app may not add photos. Allow it in Settings → Privacy & Security → Photos.")
    }
    do {
      try await PHPhotoLibrary.shared().performChanges {
        PHAssetCreationRequest.forAsset().addResource(with: .photo, data: data, options: nil)
      }
    } catch {
      throw RestoreError.input("The picture was not saved (\(error.localizedDescription)).")
    }
  }
}
