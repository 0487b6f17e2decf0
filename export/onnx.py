"""ONNX: a file a method, in full precision or with Q/DQ for CPUs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..quantize.graphs import load_graphs, onnx_graphs, onnx_model, without_notes
from .context import Context

# Constants of fewer numbers are not worth a cast.
SMALL = 64
MADE_WITH = ("torch", "onnx", "onnxscript", "nncf")


def write_fp32(context: Context, folder: Path) -> None:
    """Write all methods."""
    for name, model in onnx_graphs(context.student, context.tile).items():
        onnx.save(stored_halved(without_notes(model)), folder / f"{name}.onnx")


def stored_halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with weights that 16-bit floats hold exactly stored as those; whoever loads it casts them once."""
    graph = model.graph
    casts: list[onnx.NodeProto] = []
    for tensor in graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if values.size >= SMALL and np.array_equal(half, values):
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(half, f"{name}_fp16"))
            casts.append(helper.make_node("Cast", [tensor.name], [name], f"{name}_cast", to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return model


def write_int8(context: Context, folder: Path) -> None:
    """Write the graphs that were quantised for CPUs: int8 where XNNPACK computes in int8, zero-points free."""
    assert context.quantized is not None
    for name, program in load_graphs(context.quantized / "xnnpack").items():
        onnx.save(without_notes(onnx_model(name, program)), folder / f"{name}.onnx")
