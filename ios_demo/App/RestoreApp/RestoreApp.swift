import SwiftUI

/// The demo: take or pick a photo, set budget and quality, watch it get better until the time is up.
///
/// Launched with `--burnish-job JOB OUT` it does a job of `burnish profile` and exits, with `--burnish-remove FOLDER` it
/// removes what such jobs left, with `--burnish-benchmark` it measures its bundle, writes Documents/perf.json and exits.
@main
struct RestoreApp: App {
  @State private var library = Library()
  private let hasTask: Bool

  init() { hasTask = LaunchedTask.startIfAsked(CommandLine.arguments) }

  var body: some Scene {
    WindowGroup {
      TabView {
        RestoreScreen(library: library).tabItem { Label("Restore", systemImage: "wand.and.stars") }
        BenchmarkScreen(library: library).tabItem { Label("Benchmark", systemImage: "stopwatch") }
      }
      .task {
        // A second program beside the one that is measured would spoil its times, and a phone that locks itself stops it.
        if hasTask { UIApplication.shared.isIdleTimerDisabled = true } else { await library.find() }
      }
    }
  }
}
