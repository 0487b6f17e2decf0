"""ExecuTorch with XNNPACK: one multi-method .pte, fp32 or int8."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from torch.export import ExportedProgram

from ..quantize.graphs import NAMES, export_graphs
from ..runtime.errors import BackendError
from .context import Context

MADE_WITH = ("torch", "executorch", "nncf")


def write_fp32(context: Context, folder: Path) -> None:
    """Write student.pte in full precision."""
    _write(export_graphs(context.student, context.tile), folder)


def write_int8(context: Context, folder: Path) -> None:
    """Lower the quantised graphs to student.pte."""
    assert context.quantized is not None
    _write({name: torch.export.load(context.quantized / "xnnpack" / f"{name}.pt2") for name in NAMES}, folder)


def _write(programs: Mapping[str, ExportedProgram], folder: Path) -> None:
    import_module("executorch.kernels.quantized")  # registers out-variants that int8 lowering needs
    lowered = to_edge_transform_and_lower(dict(programs), partitioner=[XnnpackPartitioner()])
    program = lowered.to_executorch()
    for name in programs:
        outside = operators_outside(program.exported_program(name))
        if outside:
            raise BackendError(f"{name} is not one XNNPACK delegate: {', '.join(outside)} stay outside")
    (folder / "student.pte").write_bytes(program.buffer)


def operators_outside(program: ExportedProgram) -> list[str]:
    """Operators that are not inside a method's one delegate; empty when the whole method was delegated."""
    calls = [str(n.target) for n in program.graph.nodes if n.op == "call_function"]
    rest = [c for c in calls if "getitem" not in c and "executorch_call_delegate" not in c and "alloc" not in c]
    return rest + ["executorch_call_delegate"] * (sum("executorch_call_delegate" in c for c in calls) - 1)
