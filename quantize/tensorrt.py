"""TensorRT: ONNX with explicit Q/DQ, signed and with zero-point 0 everywhere, as its parser demands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from ..distill.student import Student
from ..runtime.errors import BackendError
from .calibration import Samples
from .config import QuantizeConfig
from .graphs import NAMES, onnx_graphs, without_notes
from .nncf import load_nncf, range_estimator


def write(student: Student, tile: int, samples: Samples, config: QuantizeConfig, folder: Path) -> None:
    """Quantise both methods with NNCF's ONNX backend, make every quantizer symmetric, write encode.onnx and refine.onnx."""
    left_in_float = {"encode": config.encode_float, "refine": config.refine_float}
    for name, model in onnx_graphs(student, tile).items():
        signed = symmetric(quantize(model, name, left_in_float[name], samples, config))
        assert_signed(signed)
        onnx.checker.check_model(signed)
        onnx.save(without_notes(signed), folder / f"{name}.onnx")


def quantize(
    model: onnx.ModelProto, method: str, left_in_float: tuple[str, ...], samples: Samples, config: QuantizeConfig
) -> onnx.ModelProto:
    """NNCF post-training quantisation of one method; the named modules stay in float."""
    nncf = load_nncf()

    def in_float(node: onnx.NodeProto) -> bool:
        notes = " ".join(p.value for p in node.metadata_props if p.key in ("namespace", "pkg.torch.onnx.name_scopes"))
        return any(f"{module}/" in notes or f"'{module}" in notes or f"{module}:" in notes for module in left_in_float)

    inputs = NAMES[method][0]
    rows = [{k: v.numpy() for k, v in zip(inputs, row, strict=True)} for row in samples[method]]
    ignored = [node.name for node in model.graph.node if in_float(node)]
    quantized: onnx.ModelProto = nncf.quantize(
        model,
        nncf.Dataset(rows),
        preset=nncf.QuantizationPreset.PERFORMANCE,
        target_device=nncf.TargetDevice.ANY,
        subset_size=len(rows),
        fast_bias_correction=config.bias_correction,
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            activations_range_estimator_params=range_estimator(config.range)
        ),
        ignored_scope=nncf.IgnoredScope(names=ignored, validate=False),
    )
    return quantized


def symmetric(model: onnx.ModelProto) -> onnx.ModelProto:
    """Rewrite every quantizer to int8 with zero-point 0 that covers the same range.

    NNCF leaves unsigned or shifted quantizers (after ReLU also under its symmetric preset); TensorRT reads their codes as
    signed without a word. A range [lo, hi] becomes scale max(|lo|, |hi|) / 127.
    """
    tensors = {t.name: t for t in model.graph.initializer}
    values: dict[str, Any] = {name: numpy_helper.to_array(t) for name, t in tensors.items()}
    renamed: dict[tuple[str, str], tuple[str, str]] = {}
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        scale_name, zero_name = node.input[1], node.input[2]
        zero = values[zero_name]
        stored = values.get(node.input[0])
        if zero.dtype == np.int8 and not zero.any():
            continue
        if stored is not None and node.op_type == "DequantizeLinear":
            raise BackendError(f"{node.name}: a stored weight has zero-point {zero.tolist()}; expected int8 with 0")
        key = (scale_name, zero_name)
        if key not in renamed:
            info = np.iinfo(zero.dtype)
            scale = values[scale_name].astype(np.float64)
            lowest, highest = ((bound - zero.astype(np.int64)) * scale for bound in (info.min, info.max))
            reach = np.maximum(np.abs(lowest), np.abs(highest))
            names = (f"{scale_name}_signed", f"{zero_name}_signed")
            model.graph.initializer.append(numpy_helper.from_array((reach / 127).astype(np.float32), names[0]))
            model.graph.initializer.append(numpy_helper.from_array(np.zeros(zero.shape, np.int8), names[1]))
            renamed[key] = names
        node.input[1], node.input[2] = renamed[key]
    del model.graph.value_info[:]  # they still name the unsigned types
    used = {name for node in model.graph.node for name in node.input}
    kept = [t for t in model.graph.initializer if t.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return model


def assert_signed(model: onnx.ModelProto) -> None:
    """Raise BackendError unless every quantizer is int8 with zero-point 0."""
    values = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = values[node.input[2]]
            if zero.dtype != np.int8 or zero.any():
                raise BackendError(f"{node.name} has zero-point {zero.dtype} {zero.tolist()}; expected int8 0")
