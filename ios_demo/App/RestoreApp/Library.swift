import Foundation
import Observation
import RestoreCore
import RestoreCoreML

/// The bundle that the app works with, its program, and the restorer made of them.
@MainActor @Observable
final class Library {
  enum State {
    case loading(String)
    case ready(Loaded)
    case failed(String)
  }

  struct Loaded {
    let restorer: Restorer
    let session: CoreMLSession
    let folder: URL
    let placements: [Placement]
  }

  private(set) var state = State.loading("Looking for a bundle")
  private(set) var bundle: RestoreBundle?
  private(set) var programs: [Program] = []
  private(set) var program: Program?
  private(set) var units = ComputeUnits.all
  private var loading: Task<Void, Never>?

  /// Documents first (`devicectl device copy to`, or the Files app), then what was built into the app.
  func find() async {
    guard bundle == nil else { return }
    do {
      let opened = try Self.openFirst()
      let usable = try opened.programs(of: "coreml").filter(CoreMLLoader.canLoad)
      guard let first = usable.first else {
        throw RestoreError.bundle("the bundle's Core ML programs need a newer iOS; export coreml-ios17")
      }
      (bundle, programs) = (opened, usable)
      choose(first, units)
    } catch {
      state = .failed("\(error)")
    }
  }

  /// Loads a program on the compute units, and warms it up so that its cost is known.
  func choose(_ program: Program, _ units: ComputeUnits) {
    guard let bundle else { return }
    loading?.cancel()
    (self.program, self.units) = (program, units)
    state = .loading("Checking and loading \(program.name); the first time takes longer")
    loading = Task {
      do {
        let loaded = try await Self.load(bundle, program, units)
        if !Task.isCancelled { state = .ready(loaded) }
      } catch {
        if !Task.isCancelled { state = .failed("\(error)") }
      }
    }
  }

  nonisolated private static func load(_ bundle: RestoreBundle, _ program: Program, _ units: ComputeUnits) async throws -> Loaded
  {
    let folder = try bundle.folder(of: program)
    let session = try await CoreMLLoader(units: units).session(folder)
    let restorer = Restorer(bundle: bundle, program: program, session: session)
    try await restorer.warmUp()
    return Loaded(restorer: restorer, session: session, folder: folder, placements: await session.placements())
  }

  /// Throws what is wrong with the first bundle there is, or says where one is looked for.
  nonisolated static func openFirst() throws -> RestoreBundle {
    for place in [URL.documentsDirectory, Foundation.Bundle.main.resourceURL?.appendingPathComponent("Models")] {
      guard let place, let names = try? FileManager.default.contentsOfDirectory(atPath: place.path) else { continue }
      for folder in names.sorted().map(place.appendingPathComponent)
      where FileManager.default.fileExists(atPath: folder.appendingPathComponent(RestoreBundle.manifestName).path) {
        return try RestoreBundle(opening: folder)
      }
    }
    throw RestoreError.bundle(
      "There is no bundle yet. Copy one that `burnish export` wrote into this app's folder in Files, or build it in (see README)."
    )
  }
}
