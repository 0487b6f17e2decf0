"""ONNX: encode.onnx and refine.onnx, in full precision or with Q/DQ for CPUs."""

from __future__ import annotations

from pathlib import Path

import onnx

from ..quantize.graphs import load_graphs, onnx_graphs, onnx_model, without_notes
from .context import Context

MADE_WITH = ("torch", "onnx", "onnxscript", "nncf")


def write_fp32(context: Context, folder: Path) -> None:
    """Write both methods."""
    for name, model in onnx_graphs(context.student, context.tile).items():
        onnx.save(without_notes(model), folder / f"{name}.onnx")


def write_int8(context: Context, folder: Path) -> None:
    """Write the graphs that were quantised for CPUs: int8 where XNNPACK computes in int8, zero-points free."""
    assert context.quantized is not None
    for name, program in load_graphs(context.quantized / "xnnpack").items():
        onnx.save(without_notes(onnx_model(name, program)), folder / f"{name}.onnx")
