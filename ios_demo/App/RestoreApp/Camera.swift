import ImageIO
import SwiftUI
import UIKit
import UniformTypeIdentifiers

/// The system's camera; gives the photo as JPEG with its metadata.
struct Camera: UIViewControllerRepresentable {
  let taken: (Data) -> Void
  @Environment(\.dismiss) private var dismiss

  func makeUIViewController(context: Context) -> UIImagePickerController {
    let picker = UIImagePickerController()
    picker.sourceType = .camera
    picker.delegate = context.coordinator
    return picker
  }

  func updateUIViewController(_ picker: UIImagePickerController, context: Context) {}

  func makeCoordinator() -> Coordinator { Coordinator(camera: self) }

  @MainActor
  final class Coordinator: NSObject, UIImagePickerControllerDelegate, UINavigationControllerDelegate {
    private let camera: Camera

    init(camera: Camera) { self.camera = camera }

    func imagePickerController(
      _ picker: UIImagePickerController, didFinishPickingMediaWithInfo info: [UIImagePickerController.InfoKey: Any]
    ) {
      if let image = info[.originalImage] as? UIImage, let data = Self.encode(image, info[.mediaMetadata]) { camera.taken(data) }
      camera.dismiss()
    }

    func imagePickerControllerDidCancel(_ picker: UIImagePickerController) { camera.dismiss() }

    private static func encode(_ image: UIImage, _ metadata: Any?) -> Data? {
      guard let pixels = image.cgImage else { return nil }
      let data = NSMutableData()
      let type = UTType.jpeg.identifier as CFString
      guard let destination = CGImageDestinationCreateWithData(data, type, 1, nil) else { return nil }
      var facts = metadata as? [CFString: Any] ?? [:]
      facts[kCGImageDestinationLossyCompressionQuality] = 1.0
      CGImageDestinationAddImage(destination, pixels, facts as CFDictionary)
      return CGImageDestinationFinalize(destination) ? data as Data : nil
    }
  }
}
