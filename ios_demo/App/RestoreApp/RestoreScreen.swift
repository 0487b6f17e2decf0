import AVFoundation
import PhotosUI
import RestoreCore
import SwiftUI

/// The photo, what may be asked for, and what came of it.
struct RestoreScreen: View {
  let library: Library
  @State private var restoring = Restoring()
  @State private var picked: PhotosPickerItem?
  @State private var showsCamera = false
  @State private var showsTrace = false

  var body: some View {
    NavigationStack {
      VStack(spacing: 12) {
        picture
        status
        PolicySliders(restoring: restoring)
        buttons
      }
      .padding()
      .navigationTitle("Restore")
      .navigationBarTitleDisplayMode(.inline)
      .toolbar {
        PhotosPicker(selection: $picked, matching: .images, preferredItemEncoding: .current) {
          Label("Pick a photo", systemImage: "photo.on.rectangle")
        }
        Button("Take a photo", systemImage: "camera") { Task { await openCamera() } }
      }
    }
    .onChange(of: picked) { _, item in Task { await load(item) } }
    .fullScreenCover(isPresented: $showsCamera) {
      Camera { data in Task { await restoring.open(data) } }.ignoresSafeArea()
    }
    .sheet(isPresented: $showsTrace) {
      if let result = restoring.result { TraceScreen(result: result) }
    }
    .alert("Restore", isPresented: hasMessage) {
    } message: {
      Text(restoring.message ?? "")
    }
  }

  @ViewBuilder private var picture: some View {
    if let before = restoring.before {
      Comparison(before: before, after: restoring.after)
    } else {
      ContentUnavailableView("No photo yet", systemImage: "photo", description: Text("Pick one, or take one."))
    }
  }

  @ViewBuilder private var status: some View {
    switch library.state {
    case .loading(let what): ProgressView(what)
    case .failed(let why): Label(why, systemImage: "exclamationmark.triangle").foregroundStyle(.red).font(.callout)
    case .ready:
      if restoring.isRunning, let progress = restoring.progress {
        ProgressView(value: Double(progress.done), total: Double(progress.tiles)) {
          Text("Iteration \(progress.iteration), \(progress.elapsedMs, specifier: "%.0f") ms")
        }
      } else if let result = restoring.result {
        Text(result.summary).font(.callout).multilineTextAlignment(.center)
      }
    }
  }

  private var buttons: some View {
    HStack {
      if restoring.isRunning {
        Button("Stop", role: .cancel) { restoring.stop() }
      } else if case .ready(let loaded) = library.state {
        Button("Restore") { restoring.start(loaded.restorer) }
          .buttonStyle(.borderedProminent)
          .disabled(restoring.photo == nil)
      }
      Spacer()
      if restoring.result != nil {
        Button("Trace") { showsTrace = true }
        Button("Save") { Task { await restoring.save() } }
      }
    }
  }

  private var hasMessage: Binding<Bool> {
    Binding(get: { restoring.message != nil }, set: { if !$0 { restoring.message = nil } })
  }

  private func load(_ item: PhotosPickerItem?) async {
    guard let item else { return }
    // So that the same photo can be picked again.
    picked = nil
    do {
      if let data = try await item.loadTransferable(type: Data.self) {
        await restoring.open(data)
      } else {
        restoring.message = "This photo cannot be read."
      }
    } catch {
      restoring.message = "This photo cannot be read (\(error.localizedDescription)). Is it still being downloaded?"
    }
  }

  private func openCamera() async {
    guard UIImagePickerController.isSourceTypeAvailable(.camera) else {
      restoring.message = "This device has no camera."
      return
    }
    guard await AVCaptureDevice.requestAccess(for: .video) else {
      restoring.message = "The app may not use the camera. Allow it in Settings → Privacy & Security → Camera."
      return
    }
    showsCamera = true
  }
}

/// How long it may take, and how good is good enough.
struct PolicySliders: View {
  let restoring: Restoring

  var body: some View {
    Grid(alignment: .leading) {
      GridRow {
        Text("Time")
        Slider(value: budget, in: 0.1...10)
        Text(restoring.budgetMs.map { String(format: "%.1f s", $0 / 1000) } ?? "no limit").monospacedDigit()
      }
      GridRow {
        Text("Quality")
        Slider(value: quality, in: 15...45)
        Text(restoring.wantedPsnr.map { String(format: "%.0f dB", $0) } ?? "best").monospacedDigit()
      }
    }
    .disabled(restoring.isRunning)
  }

  /// At its right end there is no limit.
  private var budget: Binding<Double> {
    Binding(get: { restoring.budgetMs.map { $0 / 1000 } ?? 10 }, set: { restoring.budgetMs = $0 >= 10 ? nil : $0 * 1000 })
  }

  private var quality: Binding<Double> {
    Binding(get: { restoring.wantedPsnr ?? 45 }, set: { restoring.wantedPsnr = $0 >= 45 ? nil : $0 })
  }
}

extension Restoration {
  /// For people: what was found, how good it is predicted to be, and why it ended.
  var summary: String {
    let found = steps.first?.degradations.filter { $0.weight >= 0.5 }.map { $0.expert.replacing("_", with: " ") } ?? []
    let why =
      switch reason {
      case .quality: "it is good enough"
      case .regression: "the next step made it worse and was undone"
      case .plateau: "nothing more to gain"
      case .iterations: "all iterations are done"
      case .budget: iteration == 0 ? "there was no time for a step; this is the photo itself" : "the time was up"
      case .broken: "a step failed and was undone"
      case .cancelled: "you stopped it"
      }
    let time = String(format: "%.0f ms, about %.0f dB", elapsedMs, Quality.psnr(quality))
    return "\(found.isEmpty ? "Nothing found" : "Found " + found.joined(separator: ", ")). \(time): \(why)."
  }
}
