"""ExecuTorch with XNNPACK: one multi-method .pte, fp32 or int8."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
    XNNPACKQuantizer,
    get_symmetric_quantization_config,
)
from executorch.exir import to_edge_transform_and_lower
from torch.export import ExportedProgram

from ..distill.methods import example_inputs
from ..quantize.core import export_graphs, quantize
from ..runtime.errors import BackendError
from .context import Context

MADE_WITH = ("torch", "executorch", "nncf")


def xnnpack_quantizer() -> XNNPACKQuantizer:
    """Symmetric int8, weights a channel, activations a tensor."""
    quantizer = XNNPACKQuantizer()
    quantizer.set_global(get_symmetric_quantization_config(is_per_channel=True))
    return quantizer


def write_fp32(context: Context, folder: Path) -> None:
    """Write student.pte in full precision."""
    _write(export_graphs(context.student, context.tile), folder)


def write_int8(context: Context, folder: Path) -> None:
    """Quantise and write student.pte."""
    graphs = quantize(context.student, context.tile, xnnpack_quantizer, context.samples, context.config)
    inputs = example_inputs(context.student, context.tile)
    _write({name: torch.export.export(graph, inputs[name], strict=True) for name, graph in graphs.items()}, folder)


def _write(programs: Mapping[str, ExportedProgram], folder: Path) -> None:
    import executorch.kernels.quantized  # noqa: F401  (without it int8 lowering misses out-variants)

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
