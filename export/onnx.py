"""ONNX: encode.onnx and refine.onnx in full precision."""

from __future__ import annotations

from pathlib import Path

import onnx

from ..quantize.graphs import onnx_graphs, without_notes
from .context import Context

MADE_WITH = ("torch", "onnx", "onnxscript")


def write_fp32(context: Context, folder: Path) -> None:
    """Write both methods."""
    for name, model in onnx_graphs(context.student, context.tile).items():
        onnx.save(without_notes(model), folder / f"{name}.onnx")
