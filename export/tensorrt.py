"""TensorRT: strongly typed ONNX, in fp16 or with explicit signed Q/DQ, which the device's own TensorRT builds engines from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from ..quantize.graphs import load_graphs, onnx_graphs, onnx_model, without_notes
from ..runtime.engines import RTX, build_one, library
from ..runtime.errors import BackendError
from ..runtime.methods import methods_in
from .context import Context
from .float16 import to_float16

MADE_WITH = ("torch", "onnx", "onnxscript", "nncf")
# What crosses to the host stays fp32; features and tokens, which stay on the device, are fp16.
FLOAT32 = {"image", "assessment", "current", "gates", "restored", "quality"}
# GeForce RTX 30, 40 and 50: what TensorRT-RTX builds for without a GPU.
AHEAD_OF_TIME = ("SM86", "SM89", "SM120")


def write_fp16(context: Context, folder: Path) -> None:
    """All methods in fp16, the heads, averages over pixels and the residual in fp32."""
    for name, model in onnx_graphs(context.student, context.tile).items():
        onnx.save(to_float16(without_notes(model), FLOAT32), folder / f"{name}.onnx")


def write_int8(context: Context, folder: Path) -> None:
    """The quantised graphs of all methods with Q/DQ. Raises BackendError when TensorRT would misread one."""
    assert context.quantized is not None
    for name, program in load_graphs(context.quantized / "tensorrt").items():
        model = onnx_model(name, program)
        assert_signed(model)
        onnx.save(without_notes(model), folder / f"{name}.onnx")


def assert_signed(model: onnx.ModelProto) -> None:
    """Raise BackendError unless every quantizer is int8 with zero-point 0; TensorRT reads other codes so without a word."""
    values = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = values.get(node.input[2])
            if zero is None or zero.dtype != np.int8 or zero.any():
                found = "none" if zero is None else f"{zero.dtype} {zero.tolist()}"
                raise BackendError(f"{node.name} has zero-point {found}; expected int8 0")


def check(context: Context, folder: Path) -> str:
    """Have TensorRT-RTX parse and build all methods ahead of time, where it is installed. Raises BackendError.

    A warning about precision or zero-points counts as a failure: the engine would not compute what was checked.
    """
    try:
        trt = library(RTX)
    except BackendError:
        return "TensorRT-RTX, which builds without a GPU, is not installed"
    for name in methods_in(folder, ".onnx"):
        warnings = build_one(trt, folder / f"{name}.onnx", AHEAD_OF_TIME)[1]
        if warnings:
            raise BackendError(f"TensorRT-RTX {trt.__version__} on {name}.onnx: {warnings[0].strip()}")
    return f"TensorRT-RTX {trt.__version__} builds it for {', '.join(AHEAD_OF_TIME)} without a warning on its types"
