"""Engines by torch-tensorrt, straight from the student's weights: fp16 inside, fp32 where it matters."""

from __future__ import annotations

import copy
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..distill.methods import example_inputs, methods
from ..distill.student import Correction, Head, Student
from ..runtime.errors import BackendError
from ..runtime.methods import ENCODE, REFINE

INSTALL = (
    "on a Jetson: the torch and torch-tensorrt wheels of its JetPack release; on x86: pip install torch-tensorrt==2.13.0 "
    "beside a CUDA build of torch 2.13; or build from the bundle's ONNX with --with tensorrt"
)


def load() -> Any:
    """The torch_tensorrt module. Raises BackendError naming what to install."""
    try:
        return import_module("torch_tensorrt")
    except (ImportError, OSError, RuntimeError) as error:
        raise BackendError(f"torch-tensorrt does not load ({str(error).splitlines()[0]}); {INSTALL}") from None


class _Typed(nn.Module):
    """A method whose types are those of the exported fp16 program: gates come as fp32."""

    def __init__(self, method: nn.Module, gates: bool) -> None:
        super().__init__()
        self.method, self.gates = method, gates

    def forward(self, *inputs: Tensor) -> Any:
        if self.gates:
            inputs = (*inputs[:-1], inputs[-1].half())
        return self.method(*inputs)


def half_methods(student: Student) -> dict[str, nn.Module]:
    """All methods in fp16, with heads, averages over pixels and the correction of the picture in fp32."""
    typed: dict[str, nn.Module] = {}
    for name, method in methods(copy.deepcopy(student)).items():
        single: set[nn.Module] = set()
        for module in method.half().modules():
            if isinstance(module, Head | Correction):
                single.update(module.float().modules())
                module.register_forward_pre_hook(_to_single)
            elif isinstance(module, nn.AdaptiveAvgPool2d) and module not in single:
                module.register_forward_pre_hook(_to_single)
                module.register_forward_hook(lambda _, inputs, output: output.half())
        stem = method.get_submodule("encoder.stem" if name == ENCODE else "refiner.stem")
        stem.register_forward_pre_hook(lambda _, inputs: tuple(x.half() for x in inputs))
        typed[name] = _Typed(method, gates=name != ENCODE).eval()
    return typed


def _to_single(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(x.float() for x in inputs)


def typed_inputs(student: Student, tile: int) -> dict[str, tuple[Tensor, ...]]:
    """Example inputs of `half_methods`: pictures and gates fp32, features and tokens fp16."""
    inputs = example_inputs(student, tile)
    current, *features, gates = inputs[REFINE]
    halved = (current, *(f.half() for f in features), gates)
    return {ENCODE: inputs[ENCODE], **dict.fromkeys(student.refiners, halved)}


def build(student: Student, tile: int) -> dict[str, bytes]:
    """Serialised engines of all methods for this machine's GPU. Raises BackendError."""
    compiler = load()
    if not torch.cuda.is_available():
        raise BackendError(f"torch sees no CUDA device; {INSTALL}")
    inputs = typed_inputs(student, tile)
    made: dict[str, bytes] = {}
    for name, method in half_methods(student).items():
        given = tuple(x.cuda() for x in inputs[name])
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(method.cuda(), given, strict=False)
            try:
                made[name] = compiler.dynamo.convert_exported_program_to_serialized_trt_engine(
                    program, arg_inputs=given, use_explicit_typing=True
                )
            except Exception as error:  # torch-tensorrt raises its own and TensorRT's types
                raise BackendError(f"torch-tensorrt cannot build {name}: {str(error).splitlines()[0]}") from None
    return made


def builder(student: Student, tile: int) -> Any:
    """`build` as `runtime.engines` calls it."""

    def from_weights(_: Path) -> dict[str, bytes]:
        return build(student, tile)

    return from_weights
