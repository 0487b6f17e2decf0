"""ONNX: encode.onnx and refine.onnx in full precision."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch

from ..distill.student import Student
from ..quantize.core import export_graphs
from ..runtime.backends.base import ENCODE_INPUTS, ENCODE_OUTPUTS, REFINE_INPUTS, REFINE_OUTPUTS
from .context import Context

MADE_WITH = ("torch", "onnx", "onnxscript")
# TensorRT 10.3 (JetPack 6.2) reads opset 20 and IR 10 at most; ONNX Runtime 1.18 reads both.
OPSET = 18
IR_VERSION = 10
NAMES = {"encode": (ENCODE_INPUTS, ENCODE_OUTPUTS), "refine": (REFINE_INPUTS, REFINE_OUTPUTS)}


def convert(student: Student, tile: int) -> dict[str, onnx.ModelProto]:
    """Both methods as checked ONNX models."""
    models: dict[str, onnx.ModelProto] = {}
    for name, program in export_graphs(student, tile).items():
        inputs, outputs = NAMES[name]
        converted = torch.onnx.export(
            program,
            input_names=list(inputs),
            output_names=list(outputs),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
        assert converted is not None
        model = converted.model_proto
        model.ir_version = IR_VERSION
        onnx.checker.check_model(model)
        models[name] = model
    return models


def strip(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop the exporter's notes (stack traces with this machine's paths among them)."""
    del model.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        del value.metadata_props[:]
    return model


def write_fp32(context: Context, folder: Path) -> None:
    """Write both methods."""
    for name, model in convert(context.student, context.tile).items():
        onnx.save(strip(model), folder / f"{name}.onnx")
