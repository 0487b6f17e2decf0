#if canImport(CoreML)
  import CoreML

  /// Which of the phone's processors Core ML may use.
  public enum ComputeUnits: String, CaseIterable, Identifiable, Sendable {
    case all, cpuAndNeuralEngine, cpuAndGPU, cpuOnly

    public var id: Self { self }

    var asCoreML: MLComputeUnits {
      switch self {
      case .all: .all
      case .cpuAndNeuralEngine: .cpuAndNeuralEngine
      case .cpuAndGPU: .cpuAndGPU
      case .cpuOnly: .cpuOnly
      }
    }
  }

  /// Where Core ML means to run a function's operations: an estimate of its own, not a measurement.
  public struct Placement: Equatable, Sendable {
    public let function: String
    public let neuralEngine: Int
    public let gpu: Int
    public let cpu: Int
  }

  @available(iOS 17.4, macOS 14.4, *)
  extension Placement {
    /// Nil where Core ML makes no plan for the model.
    init?(of function: String, in model: URL, configuration: MLModelConfiguration) async {
      guard let plan = try? await MLComputePlan.load(contentsOf: model, configuration: configuration),
        case .program(let program) = plan.modelStructure,
        let body = program.functions[function] ?? program.functions.first?.value
      else { return nil }
      var (neuralEngine, gpu, cpu) = (0, 0, 0)
      for operation in body.block.operations {
        switch plan.deviceUsage(for: operation)?.preferred {
        case .neuralEngine: neuralEngine += 1
        case .gpu: gpu += 1
        case .cpu: cpu += 1
        // Constants run nowhere.
        default: continue
        }
      }
      self.init(function: function, neuralEngine: neuralEngine, gpu: gpu, cpu: cpu)
    }
  }
#endif
