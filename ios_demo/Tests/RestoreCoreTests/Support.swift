import Foundation

@testable import RestoreCore

/// A program without a network: it moves every pixel half of the way to mid grey, and is as slow as it is told to be.
actor Grey: Session {
  let delayMs: Double
  /// Predicted quality of every refine, one after the other; the last one again when they run out.
  let qualities: [Double]
  /// Gives a picture of NaN at this refine.
  let breaksAt: Int?
  /// Degradation logits of every picture.
  let logits: [Double]
  /// Tokens of every encode, and those of every refine.
  private(set) var said: [[Float]] = []
  private(set) var asked: [[Float]] = []
  /// The method of every refine.
  private(set) var methods: [String] = []
  private(set) var encodes = 0
  private(set) var refines = 0
  private(set) var atOnce = 0
  private(set) var mostAtOnce = 0

  init(
    delayMs: Double = 0, qualities: [Double] = [0.5, 0.6, 0.7, 0.8], breaksAt: Int? = nil,
    logits: [Double] = [2, -4, -4, -4, -4, -4, -4]
  ) {
    self.delayMs = delayMs
    self.qualities = qualities
    self.breaksAt = breaksAt
    self.logits = logits
  }

  func encode(_ image: Planes) async throws -> Encoded {
    encodes += 1
    await work()
    let tokens = [Float(image.mean), Float(encodes)]
    said.append(tokens)
    return try Encoded(features: image.mean, tokens: tokens, assessment: [-1, -6] + logits)
  }

  func refine(
    _ current: Planes, original: Encoded, estimate: Encoded, tokens: [Float], gates: [Float], method: String
  ) async throws -> Refined {
    refines += 1
    asked.append(tokens)
    methods.append(method)
    let call = refines
    await work()
    let isBroken = call == breaksAt
    let values: [Float] = current.values.map { (value: Float) -> Float in isBroken ? .nan : value / 2 + 0.25 }
    return Refined(restored: try Planes(values: values, side: current.side), quality: qualities[min(call, qualities.count) - 1])
  }

  private func work() async {
    atOnce += 1
    mostAtOnce = max(mostAtOnce, atOnce)
    // Deaf to cancelling, as a call of a program is.
    if delayMs > 0 { await Task.detached { [delayMs] in try? await Task.sleep(for: .milliseconds(delayMs)) }.value }
    atOnce -= 1
  }
}

/// A program whose calls end when they are released.
actor Stuck: Session {
  private var isReleased = false
  private var waiting: [CheckedContinuation<Void, Never>] = []

  func encode(_ image: Planes) async throws -> Encoded {
    if !isReleased { await withCheckedContinuation { waiting.append($0) } }
    return try Encoded(features: 0, tokens: [], assessment: [0, 0, 0, 0, 0, 0, 0, 0, 0])
  }

  func refine(
    _ current: Planes, original: Encoded, estimate: Encoded, tokens: [Float], gates: [Float], method: String
  ) async throws -> Refined {
    Refined(restored: current, quality: 0.5)
  }

  func release() {
    isReleased = true
    for call in waiting { call.resume() }
    waiting = []
  }
}

/// A folder that is gone afterwards.
func withFolder<Value>(_ body: (URL) async throws -> Value) async throws -> Value {
  let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
  try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
  defer { try? FileManager.default.removeItem(at: folder) }
  return try await body(folder)
}

let manifestText = """
  {"format": 1, "student": {"size": "small", "rank": 4}, "tile": 64, "licence": "CC BY-SA 4.0",
   "routing": {"tree": {"weather": ["rain", "snow", "haze"], "exposure": ["low_light", "noise"], "detail": ["blur", "jpeg"]},
               "threshold": -3.0, "softness": 0.7, "top": 4},
   "programs": [{"target": "coreml", "precision": "fp16", "boundary_bytes": {"encode": 1000000},
                 "files": [{"path": "programs/coreml-fp16/student.mlpackage/model", "bytes": 3, "sha256":
                   "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}]}]}
  """

/// A bundle with one program of one file that says "abc".
func writeBundle(_ folder: URL, manifest: String = manifestText) throws {
  let program = folder.appendingPathComponent("programs/coreml-fp16/student.mlpackage")
  try FileManager.default.createDirectory(at: program, withIntermediateDirectories: true)
  try Data("abc".utf8).write(to: program.appendingPathComponent("model"))
  try Data(manifest.utf8).write(to: folder.appendingPathComponent("bundle.json"))
}

func restorer(
  _ session: any Session, featureMemory: Int = Restorer.featureMemory, manifest: String = manifestText
) async throws -> Restorer {
  try await withFolder { folder in
    try writeBundle(folder, manifest: manifest)
    let bundle = try RestoreBundle(opening: folder)
    return Restorer(bundle: bundle, program: bundle.manifest.programs[0], session: session, featureMemory: featureMemory)
  }
}

/// A picture with a slope and a pattern.
func picture(_ height: Int, _ width: Int) throws -> Pixels {
  var data: [UInt8] = []
  for place in 0..<height * width * 3 {
    let value: Int = place * 7 + place / (3 * width)
    data.append(UInt8(truncatingIfNeeded: value))
  }
  return try Pixels(height: height, width: width, data: data)
}
