import Observation
import RestoreCore
import RestoreCoreML
import SwiftUI

/// One photo and what became of it.
@MainActor @Observable
final class Restoring {
  private(set) var photo: Photo?
  private(set) var before: CGImage?
  private(set) var after: CGImage?
  private(set) var result: Restoration?
  private(set) var progress: Update?
  private(set) var isRunning = false
  var message: String?
  /// Milliseconds; nil: as long as it takes.
  var budgetMs: Double? = 1500
  /// In dB of predicted PSNR; nil: as good as it gets.
  var wantedPsnr: Double?

  private var task: Task<Void, Never>?

  func open(_ data: Data) async {
    stop()
    do {
      let photo = try await Task.detached { try Photo(decoding: data) }.value
      // What still runs is of the photo before; its result must not become this one's.
      while isRunning {
        stop()
        await task?.value
      }
      self.photo = photo
      before = try photo.pixels.image()
      (after, result, progress) = (nil, nil, nil)
    } catch {
      message = "\(error)"
    }
  }

  func start(_ restorer: Restorer) {
    guard let photo, !isRunning else { return }
    var policy = Policy()
    policy.budgetMs = budgetMs
    policy.minQuality = wantedPsnr.map { ($0 - 10) / 40 }
    (after, result, progress, isRunning) = (nil, nil, nil, true)
    task = Task {
      defer { isRunning = false }
      do {
        try Self.checkMemory(photo.pixels, restorer)
        let stream = try await restorer.restore(photo.pixels, policy: policy)
        for try await update in stream {
          progress = update
          // Of a large picture's many tiles not each is worth a frame.
          if update.tiles < 8 || update.tile % 4 == 0 { after = try update.picture.image() }
        }
        let result = await stream.result
        after = try result.picture.image()
        self.result = result
        if result.wasBroken { message = "A step gave a broken picture and was undone. Try other compute units." }
      } catch {
        message = "\(error)"
      }
    }
  }

  /// Ends after the step that is running; the best so far stands.
  func stop() { task?.cancel() }

  func save() async {
    guard let photo, let result else { return }
    do {
      let data = try await Task.detached { try photo.encoded(result.picture) }.value
      try await PhotoLibrary.save(data)
      message = "Saved to Photos."
    } catch {
      message = "\(error)"
    }
  }

  /// Fails before the system would end the app. Throws `RestoreError.input`.
  private static func checkMemory(_ pixels: Pixels, _ restorer: Restorer) throws {
    // The picture, its tiles (as they are and as they are shown), what is on screen, and kept features.
    let needed = 3 * pixels.height * pixels.width * 7 + Restorer.featureMemory
    guard let free = ProcessMemory.free, needed >= free else { return }
    throw RestoreError.input(
      "This photo needs \(needed >> 20) MB and \(free >> 20) MB are free. Close other apps, or choose a smaller photo.")
  }
}
