"""The student's methods as graphs: torch.export programs and ONNX models, in full precision."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from importlib import import_module
from pathlib import Path

import onnx
import torch
from torch.export import ExportedProgram

from ..distill.methods import example_inputs, methods
from ..distill.student import Student
from ..runtime.methods import contract, methods_in

SUFFIX = ".pt2"
# TensorRT 10.3 (JetPack 6.2) reads opset 20 and IR 10 at most; ONNX Runtime 1.18 reads both.
OPSET = 18
IR_VERSION = 10


def export_graphs(student: Student, tile: int) -> dict[str, ExportedProgram]:
    """All methods as exported float programs for one tile size."""
    inputs = example_inputs(student, tile)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {name: torch.export.export(m, inputs[name], strict=True) for name, m in methods(student).items()}


def load_graphs(folder: Path) -> dict[str, ExportedProgram]:
    """The quantised graphs of all methods that `burnish quantize` wrote for one target."""
    import_module("torchao.quantization.pt2e")  # registers their operators
    return {name: torch.export.load(folder / f"{name}{SUFFIX}") for name in methods_in(folder, SUFFIX)}


def onnx_graphs(student: Student, tile: int) -> dict[str, onnx.ModelProto]:
    """All methods as checked ONNX models; nodes carry the exporter's notes on where they come from."""
    return {name: onnx_model(name, program) for name, program in export_graphs(student, tile).items()}


def onnx_model(name: str, program: ExportedProgram) -> onnx.ModelProto:
    """A method's program, float or quantised, as a checked ONNX model (Q/DQ where it is quantised)."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    inputs, outputs = contract(name)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        converted = torch.onnx.export(
            program,
            input_names=list(inputs),
            output_names=list(outputs),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert converted is not None
    model: onnx.ModelProto = converted.model_proto
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model)
    return model


def without_notes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop the exporter's notes (stack traces with this machine's paths among them)."""
    del model.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        del value.metadata_props[:]
    return model
