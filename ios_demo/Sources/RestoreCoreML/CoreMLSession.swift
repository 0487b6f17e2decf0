#if canImport(CoreML)
  import Accelerate
  @preconcurrency import CoreML
  import Foundation
  import RestoreCore

  /// A program of a bundle in Core ML. Features go from one method to the other as Core ML made them, without a copy.
  ///
  /// The models are used for predictions alone, which any thread may ask for; that makes it safe to share.
  public final class CoreMLSession: Session, @unchecked Sendable {
    struct Method: @unchecked Sendable {
      let name: String
      let model: MLModel
      let compiled: URL
      let configuration: MLModelConfiguration
    }

    /// feature1 to feature3, as encode gave them.
    private struct Features: @unchecked Sendable {
      let scales: [MLMultiArray]
    }

    /// What `refine` and the specialists take.
    private static let refined = ["current", "original1", "original2", "original3", "estimate2", "estimate3", "tokens", "gates"]

    /// Milliseconds from the package to the loaded model, compilation included where it was needed.
    public let loadMs: Double
    private let methods: [String: Method]

    /// `methods`: `encode`, `refine` and any specialists'.
    init(methods: [Method], loadMs: Double) throws {
      self.methods = Dictionary(methods.map { ($0.name, $0) }) { first, _ in first }
      self.loadMs = loadMs
      for name in ["encode", "refine"] + methods.map(\.name) {
        let given = try method(name).model.modelDescription.inputDescriptionsByName.keys
        guard Set(given) == Set(name == "encode" ? ["image"] : Self.refined) else {
          let names = given.sorted().joined(separator: ", ")
          throw RestoreError.program("\(name) takes \(names); export the bundle again")
        }
      }
    }

    private func method(_ name: String) throws -> Method {
      guard let method = methods[name] else { throw RestoreError.program("the program has no \(name); export the bundle again") }
      return method
    }

    /// Where Core ML means to run every method; empty where the system does not say.
    public func placements() async -> [Placement] {
      guard #available(iOS 17.4, macOS 14.4, *) else { return [] }
      var result: [Placement] = []
      for method in methods.values.sorted(by: { $0.name < $1.name }) {
        let plan = await Placement(of: method.name, in: method.compiled, configuration: method.configuration)
        if let plan { result.append(plan) }
      }
      return result
    }

    public func encode(_ image: Planes) async throws -> Encoded {
      let encode = try method("encode")
      let input = try Self.picture(image, for: "image", of: encode)
      let output = try await encode.model.prediction(from: MLDictionaryFeatureProvider(dictionary: ["image": input]))
      let features = Features(scales: try (1...3).map { try Self.array("feature\($0)", output) })
      return try Encoded(
        features: features, tokens: Self.tokens(Self.array("tokens", output)),
        assessment: Self.numbers(Self.array("assessment", output)))
    }

    public func refine(
      _ current: Planes, original: Encoded, estimate: Encoded, tokens: [Float], gates: [Float], method: String
    ) async throws -> Refined {
      let refine = try self.method(method)
      guard let evidence = original.features as? Features, let now = estimate.features as? Features else {
        throw RestoreError.program("the features are of another program")
      }
      let input = try MLDictionaryFeatureProvider(dictionary: [
        "current": Self.picture(current, for: "current", of: refine),
        "original1": evidence.scales[0], "original2": evidence.scales[1], "original3": evidence.scales[2],
        "estimate2": now.scales[1], "estimate3": now.scales[2],
        "tokens": Self.tokens(tokens, of: refine), "gates": Self.gates(gates, of: refine),
      ])
      let output = try await refine.model.prediction(from: input)
      guard let restored = output.featureValue(for: "restored") else { throw Self.lacks("restored") }
      guard let quality = try Self.numbers(Self.array("quality", output)).first else { throw Self.lacks("quality") }
      return Refined(restored: try Self.planes(restored, side: current.side), quality: quality)
    }

    private static func lacks(_ name: String) -> RestoreError {
      .program("the program gives no \(name); export the bundle again")
    }

    private static func array(_ name: String, _ output: any MLFeatureProvider) throws -> MLMultiArray {
      guard let array = output.featureValue(for: name)?.multiArrayValue else { throw lacks(name) }
      return array
    }

    private static func numbers(_ array: MLMultiArray) -> [Double] {
      (0..<array.count).map { array[$0].doubleValue }
    }

    private static func gates(_ gates: [Float], of method: Method) throws -> MLMultiArray {
      let type = method.model.modelDescription.inputDescriptionsByName["gates"]?.multiArrayConstraint?.dataType
      let array = try MLMultiArray(shape: [1, NSNumber(value: gates.count), 1, 1], dataType: type ?? .float32)
      for (index, gate) in gates.enumerated() { array[index] = NSNumber(value: gate) }
      return array
    }

    /// Tokens as plain numbers, entry by entry, from the type and the spacing that Core ML gave them.
    private static func tokens(_ array: MLMultiArray) throws -> [Float] {
      var given = try entries(array)
      return [Float](unsafeUninitializedCapacity: array.count) { floats, count in
        var plain = plain(floats.baseAddress, like: given)
        if array.dataType == .float16 {
          vImageConvert_Planar16FtoPlanarF(&given, &plain, 0)
        } else {
          vImageCopyBuffer(&given, &plain, 4, 0)
        }
        count = array.count
      }
    }

    /// Tokens in the type that the program takes.
    private static func tokens(_ tokens: [Float], of method: Method) throws -> MLMultiArray {
      let description = method.model.modelDescription.inputDescriptionsByName["tokens"]
      guard let wanted = description?.multiArrayConstraint else { throw lacks("tokens") }
      let array = try MLMultiArray(shape: wanted.shape, dataType: wanted.dataType)
      guard array.count == tokens.count else { throw RestoreError.program("the tokens are of another program") }
      var taken = try entries(array)
      tokens.withUnsafeBytes { floats in
        var plain = plain(UnsafeMutableRawPointer(mutating: floats.baseAddress), like: taken)
        if array.dataType == .float16 {
          vImageConvert_PlanarFtoPlanar16F(&plain, &taken, 0)
        } else {
          vImageCopyBuffer(&plain, &taken, 4, 0)
        }
      }
      return array
    }

    /// The memory of tokens, 1 × entries × width in float32 or float16, an entry a row.
    private static func entries(_ array: MLMultiArray) throws -> vImage_Buffer {
      let (shape, strides) = (array.shape.map(\.intValue), array.strides.map(\.intValue))
      guard shape.count == 3, shape[0] == 1, strides[2] == 1, [.float32, .float16].contains(array.dataType) else {
        throw RestoreError.program("the tokens have a form that this app does not read; export the bundle again")
      }
      let bytes = array.dataType == .float16 ? 2 : 4
      return vImage_Buffer(
        data: array.dataPointer, height: vImagePixelCount(shape[1]), width: vImagePixelCount(shape[2]),
        rowBytes: bytes * strides[1])
    }

    /// Floats without gaps, in as many rows as another buffer has.
    private static func plain(_ floats: UnsafeMutableRawPointer?, like other: vImage_Buffer) -> vImage_Buffer {
      vImage_Buffer(data: floats, height: other.height, width: other.width, rowBytes: 4 * Int(other.width))
    }

    /// A picture in the type that the program takes; float32 is handed over where it is.
    private static func picture(_ planes: Planes, for name: String, of method: Method) throws -> MLFeatureValue {
      guard let wanted = method.model.modelDescription.inputDescriptionsByName[name] else { throw lacks(name) }
      if wanted.type == .image { return MLFeatureValue(pixelBuffer: try PixelBuffers.make(planes)) }
      let side = planes.side
      let shape = [1, 3, NSNumber(value: side), NSNumber(value: side)]
      if wanted.multiArrayConstraint?.dataType == .float16 {
        let array = try MLMultiArray(shape: shape, dataType: .float16)
        for channel in 0..<3 {
          var from = buffer(planes.floats + channel * planes.planeStride, side, 4 * planes.rowStride)
          let start = array.dataPointer + 2 * channel * array.strides[1].intValue
          var to = buffer(start, side, 2 * array.strides[2].intValue)
          vImageConvert_PlanarFtoPlanar16F(&from, &to, 0)
        }
        return MLFeatureValue(multiArray: array)
      }
      let strides = [3 * planes.planeStride, planes.planeStride, planes.rowStride, 1].map { NSNumber(value: $0) }
      let array = try MLMultiArray(dataPointer: planes.floats, shape: shape, dataType: .float32, strides: strides) { _ in
        withExtendedLifetime(planes) {}
      }
      return MLFeatureValue(multiArray: array)
    }

    /// The restored picture; float32 is read where Core ML wrote it.
    private static func planes(_ value: MLFeatureValue, side: Int) throws -> Planes {
      if let pixels = value.imageBufferValue { return try PixelBuffers.planes(pixels, side: side) }
      guard let array = value.multiArrayValue, array.shape.map(\.intValue) == [1, 3, side, side] else { throw lacks("restored") }
      let strides = array.strides.map(\.intValue)
      switch array.dataType {
      case .float32 where strides[3] == 1:
        let floats = array.dataPointer.assumingMemoryBound(to: Float.self)
        return Planes(side: side, planeStride: strides[1], rowStride: strides[2], floats: floats) {
          withExtendedLifetime(array) {}
        }
      case .float16 where strides[3] == 1:
        let planes = Planes(side: side)
        for channel in 0..<3 {
          var from = buffer(array.dataPointer + 2 * channel * strides[1], side, 2 * strides[2])
          var to = buffer(planes.floats + channel * planes.planeStride, side, 4 * planes.rowStride)
          vImageConvert_Planar16FtoPlanarF(&from, &to, 0)
        }
        return planes
      default: throw RestoreError.program("the restored picture has a type that this app does not read; export the bundle again")
      }
    }

    private static func buffer(_ start: UnsafeMutableRawPointer, _ side: Int, _ rowBytes: Int) -> vImage_Buffer {
      vImage_Buffer(data: start, height: vImagePixelCount(side), width: vImagePixelCount(side), rowBytes: rowBytes)
    }
  }
#endif
