import RestoreCore
import SwiftUI

/// What ran, what it cost, what was found, and why it ended.
struct TraceScreen: View {
  let result: Restoration
  @Environment(\.dismiss) private var dismiss

  var body: some View {
    NavigationStack {
      List {
        Section { Text(result.summary) }
        Section("Rounds") {
          ForEach(result.steps, id: \.iteration) { step in
            VStack(alignment: .leading) {
              HStack {
                Text(step.iteration == 0 ? "As it came" : "Iteration \(step.iteration)").bold()
                Spacer()
                Text("\(Quality.psnr(step.quality), specifier: "%.1f") dB, \(step.costMs, specifier: "%.0f") ms")
              }
              Gates(title: "found", gates: step.degradations)
              Gates(title: "experts", gates: step.gates)
            }
          }
        }
        Section("Steps") {
          ForEach(Array(result.trace.enumerated()), id: \.offset) { _, event in
            HStack {
              Text("\(event.ran.rawValue), tile \(event.tile + 1), iteration \(event.iteration)")
              Spacer()
              Text("\(event.costMs, specifier: "%.1f") ms")
            }
            .font(.footnote).monospacedDigit()
          }
        }
      }
      .navigationTitle("Trace")
      .toolbar { Button("Done") { dismiss() } }
    }
  }
}

private struct Gates: View {
  let title: String
  let gates: [Gate]

  var body: some View {
    let open = gates.filter { $0.weight >= 0.05 }.sorted { $0.weight > $1.weight }
    if !open.isEmpty {
      let texts = open.map { "\($0.expert.replacing("_", with: " ")) \(String(format: "%.2f", $0.weight))" }
      Text("\(title): \(texts.joined(separator: ", "))").font(.caption).foregroundStyle(.secondary)
    }
  }
}
