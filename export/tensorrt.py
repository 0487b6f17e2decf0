"""TensorRT: ONNX with explicit, signed Q/DQ, which the device's own TensorRT builds engines from."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx

from ..quantize.graphs import NAMES
from ..quantize.tensorrt import assert_signed
from .context import Context

MADE_WITH = ("torch", "onnx", "onnxscript", "nncf")


def write_int8(context: Context, folder: Path) -> None:
    """Take over the quantised ONNX of both methods, checked once more."""
    assert context.quantized is not None
    for name in NAMES:
        source = context.quantized / "tensorrt" / f"{name}.onnx"
        assert_signed(onnx.load(source))
        shutil.copyfile(source, folder / f"{name}.onnx")
