import Combine
import RestoreCore
import RestoreCoreML
import SwiftUI

/// Which program runs where, what it costs, and how warm the phone is.
struct BenchmarkScreen: View {
  let library: Library
  @State private var measuring = Measuring()
  @State private var thermal = ProcessInfo.processInfo.thermalState

  /// Told on any thread.
  private let thermalChanges = NotificationCenter.default.publisher(for: ProcessInfo.thermalStateDidChangeNotification)
    .receive(on: DispatchQueue.main)

  var body: some View {
    NavigationStack {
      List {
        Section("Program") { choice }
        if case .ready(let loaded) = library.state { Section("Loaded") { facts(loaded) } }
        Section("Benchmark") { benchmark }
        if let report = measuring.report { Section("Result") { results(report) } }
      }
      .navigationTitle("Benchmark")
      .onReceive(thermalChanges) { _ in thermal = ProcessInfo.processInfo.thermalState }
    }
  }

  @ViewBuilder private var choice: some View {
    if let program = library.program {
      Picker("Program", selection: Binding(get: { program.name }, set: { choose($0) })) {
        ForEach(library.programs, id: \.name) { Text($0.name).tag($0.name) }
      }
      Picker("Compute units", selection: Binding(get: { library.units }, set: { library.choose(program, $0) })) {
        ForEach(ComputeUnits.allCases) { Text($0.rawValue).tag($0) }
      }
    }
    switch library.state {
    case .loading(let what): ProgressView(what)
    case .failed(let why): Label(why, systemImage: "exclamationmark.triangle").foregroundStyle(.red)
    case .ready: EmptyView()
    }
  }

  @ViewBuilder private func facts(_ loaded: Library.Loaded) -> some View {
    LabeledContent("Loaded in", value: milliseconds(loaded.session.loadMs))
    ForEach(loaded.placements, id: \.function) { place in
      LabeledContent(
        "\(place.function) (Core ML's plan)", value: "\(place.neuralEngine) Neural Engine, \(place.gpu) GPU, \(place.cpu) CPU")
    }
    LabeledContent("Licence of the weights", value: loaded.restorer.bundle.manifest.licence)
  }

  @ViewBuilder private var benchmark: some View {
    LabeledContent("Thermal state", value: thermal.name)
    if measuring.isRunning {
      ProgressView(value: measuring.done)
      Button("Stop", role: .cancel) { measuring.stop() }
    } else if let bundle = library.bundle, let program = library.program {
      Button("Measure 50 runs") { measuring.start(bundle, program, library.units) }
    }
    if let message = measuring.message { Text(message).foregroundStyle(.red) }
  }

  @ViewBuilder private func results(_ report: Measuring.Report) -> some View {
    let result = report.result
    row("encode", Perf.Timing(result.encodeMs))
    row("refine", Perf.Timing(result.refineMs))
    row("iteration", Perf.Timing(zip(result.encodeMs, result.refineMs).map(+)))
    LabeledContent("First load, compiled", value: milliseconds(result.loadColdMs))
    LabeledContent("Load again", value: milliseconds(result.loadWarmMs))
    LabeledContent("First run", value: milliseconds(result.firstRunMs))
    LabeledContent("Memory", value: "\(result.processBytes >> 20) MB, \(result.programBytes >> 20) MB of it the program's")
    LabeledContent("Thermal state", value: report.device.thermal.joined(separator: " → "))
    ShareLink("perf.json", item: report.file)
  }

  private func row(_ name: String, _ timing: Perf.Timing) -> some View {
    let percentiles = String(format: "%.2f, %.2f, %.2f ms", timing.p50, timing.p90, timing.p99)
    return LabeledContent("\(name) p50, p90, p99", value: percentiles)
  }

  private func milliseconds(_ value: Double) -> String { String(format: "%.0f ms", value) }

  private func choose(_ name: String) {
    if let program = library.programs.first(where: { $0.name == name }) { library.choose(program, library.units) }
  }
}
