"""How multiply-adds turn into milliseconds: candidate blocks in fp32 and int8 under XNNPACK, interleaved in one process.

    python benchmarks/blocks.py [--rounds 30] [--bundle BUNDLE]

Every block is lowered by itself with one delegate. The peak is what the best block of the run reaches, dense 3×3; the
student's own methods follow, as shares of it. One thread; medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from burnish.distill.macs import count_macs
from burnish.distill.methods import multiply_adds
from burnish.distill.student import Block
from burnish.distill.weights import load_student
from burnish.quantize.xnnpack import xnnpack_quantizer
from burnish.runtime import Bundle, backends
from burnish.runtime.bundle import EMBEDDED
from burnish.runtime.routing import gate_tensor, given_gates
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from executorch.runtime import Runtime, Verification
from torch import Tensor, nn

Make = Callable[[int], nn.Module]


class Residual(nn.Module):
    """x + body(x), then ReLU."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.body(x))


class Partial(nn.Module):
    """A dense 3×3 on a quarter of the channels, the others passed on (FasterNet, CVPR 2023), then two 1×1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.part = width // 4
        self.spatial = nn.Conv2d(self.part, self.part, 3, padding=1)
        self.mix = nn.Sequential(nn.Conv2d(width, 2 * width, 1), nn.ReLU(), nn.Conv2d(2 * width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        seen = torch.cat([self.spatial(x[:, : self.part]), x[:, self.part :]], 1)
        return x + self.mix(seen)


def separable(width: int, expansion: int) -> nn.Module:
    """1×1 up, depthwise 3×3, 1×1 down: the usual mobile block."""
    wide = width * expansion
    depthwise = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
    return Residual(nn.Conv2d(width, wide, 1), nn.ReLU(), depthwise, nn.ReLU(), nn.Conv2d(wide, width, 1))


def bottleneck(width: int) -> nn.Module:
    """Two dense 3×3 at half the width between 1×1."""
    half = width // 2
    inner = [nn.Conv2d(half, half, 3, padding=1), nn.ReLU(), nn.Conv2d(half, half, 3, padding=1), nn.ReLU()]
    return Residual(nn.Conv2d(width, half, 1), nn.ReLU(), *inner, nn.Conv2d(half, width, 1))


# What a re-parameterised block is when it runs is the first of these.
BLOCKS: dict[str, Make] = {
    "conv 3×3": lambda w: nn.Conv2d(w, w, 3, padding=1),
    "two 3×3, residual": Block,
    "two 3×3 at half width": bottleneck,
    "1×1, depthwise, 1×1; ×2": lambda w: separable(w, 2),
    "1×1, depthwise, 1×1; ×4": lambda w: separable(w, 4),
    "partial 3×3, 1×1, 1×1": Partial,
    "depthwise 3×3": lambda w: nn.Conv2d(w, w, 3, padding=1, groups=w),
    "conv 1×1": lambda w: nn.Conv2d(w, w, 1),
    "conv 2×2, stride 2": lambda w: nn.Conv2d(w, w, 2, stride=2),
    "transposed 2×2, stride 2": lambda w: nn.ConvTranspose2d(w, w, 2, stride=2),
}
# Width and side: the scales of a student at a tile of 256².
SHAPES = ((16, 256), (32, 128), (64, 64), (96, 32))


class Case(NamedTuple):
    """A lowered block."""

    method: Any
    picture: Tensor
    macs: int


def lower(module: nn.Module, picture: Tensor, int8: bool, file: Path) -> Any:
    """The block as a loaded ExecuTorch method, written to `file`.

    Ranges come from noise: they do not change how long a kernel takes.
    """
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    graph: Any = torch.export.export(module.eval(), (picture,), strict=True).module()
    if int8:
        graph = prepare_pt2e(graph, xnnpack_quantizer())
        graph(picture)
        graph = convert_pt2e(graph)
    program = torch.export.export(graph, (picture,), strict=True)
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
    file.write_bytes(lowered.buffer)
    return Runtime.get().load_program(file, verification=Verification.Minimal).load_method("forward")


def cases(folder: Path) -> dict[tuple[str, int, int, str], Case]:
    """Every block at every shape in both precisions, written to `folder`."""
    import_module("executorch.kernels.quantized")
    found = {}
    for name, make in BLOCKS.items():
        for width, side in SHAPES:
            torch.manual_seed(0)
            module, picture = make(width), torch.randn(1, width, side, side)
            macs = count_macs(lambda m=module, x=picture: m(x))
            for precision in ("fp32", "int8"):
                file = folder / f"{len(found)}.pte"
                method = lower(module, picture, precision == "int8", file)
                found[name, width, side, precision] = Case(method, picture, macs)
    return found


def student_calls(bundle: Bundle) -> tuple[dict[str, Callable[[], object]], dict[str, int]]:
    """encode and refine of the bundle's ExecuTorch programs, and the multiply-adds of each."""
    manifest = bundle.manifest
    picture = np.random.default_rng(0).random((1, 3, manifest.tile, manifest.tile), np.float32)
    gates = gate_tensor(manifest.routing, given_gates(manifest.routing, {"rain": 1.0}), manifest.student.rank)
    macs = multiply_adds(load_student(bundle.file(manifest.weights)), manifest.tile)
    calls: dict[str, Callable[[], object]] = {}
    for program in manifest.programs:
        if program.target == "executorch-xnnpack":
            session = backends.load(bundle, "executorch", program, 1)
            encoded = session.encode(picture)
            calls[f"encode {program.precision}"] = lambda s=session: s.encode(picture)
            calls[f"refine {program.precision}"] = lambda s=session, e=encoded: s.refine(picture, e, e, gates)
    return calls, macs


def main() -> None:
    """Print GMAC/s of every block, the peak, and the student's share of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--bundle", type=Path, default=EMBEDDED)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    bundle = Bundle.open(arguments.bundle)
    calls, student_macs = student_calls(bundle)  # loading a session also sets XNNPACK to one thread
    with TemporaryDirectory() as folder:
        compare(bundle, cases(Path(folder)), calls, student_macs, arguments.rounds)


def compare(
    bundle: Bundle,
    blocks: dict[tuple[str, int, int, str], Case],
    calls: dict[str, Callable[[], object]],
    student_macs: dict[str, int],
    rounds: int,
) -> None:
    """Time everything in turn and print it."""
    timed: dict[Any, Callable[[], object]] = {
        key: lambda c=case: c.method.execute([c.picture]) for key, case in blocks.items()
    }
    timed |= calls
    times: dict[Any, list[float]] = {key: [] for key in timed}
    for turn in range(rounds + 2):
        for key, call in timed.items():
            began = time.perf_counter()
            call()
            if turn >= 2:  # the first rounds allocate
                times[key].append(time.perf_counter() - began)
    seconds = {key: statistics.median(row) for key, row in times.items()}
    rate = {key: case.macs / seconds[key] / 1e9 for key, case in blocks.items()}
    peak = {p: max(r for (*_, q), r in rate.items() if q == p) for p in ("fp32", "int8")}
    print(f"peak, one thread: int8 {peak['int8']:.0f}, fp32 {peak['fp32']:.0f} GMAC/s")
    heads = [f"{width} × {side}²" for width, side in SHAPES]
    print(f"{'int8 GMAC/s (share of the peak; × fp32)':<42}" + "".join(f"{head:>20}" for head in heads))
    for name in BLOCKS:
        row = [
            f"{(r := rate[name, w, s, 'int8']):.0f} ({r / peak['int8']:.0%}; {r / rate[name, w, s, 'fp32']:.1f})"
            for w, s in SHAPES
        ]
        print(f"{name:<42}" + "".join(f"{cell:>20}" for cell in row))
    print(f"\n{bundle.manifest.student.size}, tile {bundle.manifest.tile}")
    for precision in ("fp32", "int8"):
        if f"encode {precision}" not in calls:
            continue
        spent = {m: seconds[f"{m} {precision}"] for m in ("encode", "refine")}
        parts = [(m, student_macs[m], spent[m]) for m in spent]
        parts.append(("encode + refine", sum(student_macs[m] for m in spent), sum(spent.values())))
        for method, macs, took in parts:
            share = macs / took / 1e9 / peak[precision]
            print(f"{method + ' ' + precision:<24}{macs / 1e9:.2f} GMAC{took * 1e3:>9.2f} ms{share:>7.0%} of the peak")


if __name__ == "__main__":
    main()
