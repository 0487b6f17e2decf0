"""Milliseconds of encode and refine: eager, ONNX Runtime, OpenVINO and ExecuTorch, interleaved in one process.

    python benchmarks/programs.py [BUNDLE] [--rounds 40] [--threads 1]

Machines are noisy: every round runs every program once, medians are compared as ratios within the run.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from burnish.device_tests.eager import EagerSession
from burnish.device_tests.timing import interleaved
from burnish.distill.weights import load_student
from burnish.runtime import Bundle, backends
from burnish.runtime.bundle import EMBEDDED

PAIRS = (
    ("executorch-xnnpack-int8 (executorch)", "executorch-xnnpack-fp32 (executorch)"),
    ("onnx-int8 (onnxruntime)", "onnx-fp32 (onnxruntime)"),
    ("onnx-int8 (openvino)", "onnx-fp32 (openvino)"),
    ("onnx-int8 (openvino)", "executorch-xnnpack-int8 (executorch)"),
    ("onnx-fp32 (openvino)", "onnx-fp32 (onnxruntime)"),
)


def main() -> None:
    """Print a table of medians and ratios of pairs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", nargs="?", type=Path, default=EMBEDDED)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    bundle = Bundle.open(arguments.bundle)
    manifest = bundle.manifest
    sessions: dict[str, backends.Session] = {"eager": EagerSession(load_student(bundle.file(manifest.weights)))}
    for program in manifest.programs:
        for backend, names in backends.BACKENDS.items():
            # An evaluator's time says nothing of the program's; TensorRT needs its GPU to itself.
            if backend in (*backends.REFERENCES, "tensorrt") or program.name not in names:
                continue
            if backends.available(backend):
                loaded = backends.load(bundle, backend, program, arguments.threads)
                sessions[f"{program.name} ({backend})"] = loaded
    torch.set_num_threads(arguments.threads)
    times = interleaved(sessions, manifest.tile, manifest.routing, manifest.student.rank, arguments.rounds)
    print(
        f"{bundle.path.name}, tile {manifest.tile}, {arguments.threads} thread(s), median of {arguments.rounds} rounds"
    )
    print(f"{'program (backend)':<42}{'encode ms':>11}{'refine ms':>11}{'sum':>9}")
    for name, took in times.items():
        print(f"{name:<42}{took.encode_ms:>11.2f}{took.refine_ms:>11.2f}{took.iteration_ms:>9.2f}")
    for fast, slow in PAIRS:
        if fast in times and slow in times:
            print(f"{fast} is {times[slow].iteration_ms / times[fast].iteration_ms:.2f} times as fast as {slow}")


if __name__ == "__main__":
    main()
