import Foundation
import RestoreCore

/// A program as a recording: what one answered in Python to exactly these bytes. It is found by the bytes it was asked with, so
/// that a tile that is cut, packed or rounded otherwise finds no answer.
final class Recording: Session {
  private struct Features: Sendable {
    let picture: String
  }

  private let calls: JSON
  private let tokens: [String: Tensor]
  private let restored: [String: Tensor]

  /// `folder`: calls.json, tokens.safetensors and restored.safetensors, as tests/ios/recording.py writes them.
  init(folder: URL) throws {
    calls = try JSON(parsing: Data(contentsOf: folder.appendingPathComponent("calls.json")))
    tokens = try Safetensors.tensors(at: folder.appendingPathComponent("tokens.safetensors"))
    restored = try Safetensors.tensors(at: folder.appendingPathComponent("restored.safetensors"))
  }

  func encode(_ image: Planes) async throws -> Encoded {
    let key = digest(image.values)
    guard let said = calls["encode"]?[key], let logits = said["logits"]?.asDoubles, let tokens = tokens[key]?.values else {
      throw RestoreError.program("no such picture was encoded in Python")
    }
    return Encoded(
      features: Features(picture: key), tokens: tokens, quality: said["quality"]?.asDouble ?? .nan,
      granularity: said["granularity"]?.asDouble ?? .nan, logits: logits)
  }

  func refine(
    _ current: Planes, original: Encoded, estimate: Encoded, tokens: [Float], gates: [Float], method: String
  ) async throws -> Refined {
    guard let evidence = original.features as? Features, let now = estimate.features as? Features else {
      throw RestoreError.program("the features are of another program")
    }
    let asked = [method, digest(current.values), evidence.picture, now.picture, digest(tokens), digest(gates)]
    let key = asked.joined(separator: " ")
    guard let said = calls["refine"]?[key], let name = said["restored"]?.asString, let values = restored[name]?.values else {
      throw RestoreError.program("no such step was refined in Python")
    }
    let planes = try Planes(values: values, side: current.side)
    return Refined(restored: planes, quality: said["quality"]?.asDouble ?? .nan)
  }

  private func digest(_ values: [Float]) -> String {
    var hash = SHA256()
    values.withUnsafeBytes { hash.update($0) }
    return hash.finish()
  }
}

struct RecordingLoader: Loader {
  let runner = "a recording"
  let memoryInUse = 0

  func load(_ folder: URL, cold: Bool) async throws -> any Session { try Recording(folder: folder) }
}
