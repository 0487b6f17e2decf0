"""Milliseconds of encode and refine: eager, ONNX Runtime, OpenVINO and ExecuTorch, interleaved in one process.

    python benchmarks/programs.py [BUNDLE] [--rounds 40] [--threads 1]

Machines are noisy: every round runs every program once, medians are compared as ratios within the run.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from burnish.device_tests.eager import EagerSession
from burnish.distill.weights import load_student
from burnish.runtime import Bundle, backends
from burnish.runtime.bundle import EMBEDDED
from burnish.runtime.routing import gate_tensor, given_gates

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
    picture = np.random.default_rng(0).random((1, 3, manifest.tile, manifest.tile), np.float32)
    gates = gate_tensor(manifest.routing, given_gates(manifest.routing, {"rain": 1.0}), manifest.student.rank)
    times: dict[tuple[str, str], list[float]] = {}
    for turn in range(arguments.rounds + 2):
        for name, session in sessions.items():
            began = time.perf_counter()
            encoded = session.encode(picture)
            between = time.perf_counter()
            session.refine(picture, encoded, encoded, gates)
            ended = time.perf_counter()
            if turn >= 2:  # the first rounds allocate
                times.setdefault((name, "encode"), []).append((between - began) * 1e3)
                times.setdefault((name, "refine"), []).append((ended - between) * 1e3)
    print(
        f"{bundle.path.name}, tile {manifest.tile}, {arguments.threads} thread(s), median of {arguments.rounds} rounds"
    )
    print(f"{'program (backend)':<42}{'encode ms':>11}{'refine ms':>11}{'sum':>9}")
    sums = {}
    for name in sessions:
        encode, refine = (statistics.median(times[(name, method)]) for method in ("encode", "refine"))
        sums[name] = encode + refine
        print(f"{name:<42}{encode:>11.2f}{refine:>11.2f}{sums[name]:>9.2f}")
    for fast, slow in PAIRS:
        if fast in sums and slow in sums:
            print(f"{fast} is {sums[slow] / sums[fast]:.2f} times as fast as {slow}")


if __name__ == "__main__":
    main()
