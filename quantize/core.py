"""The one core of torch targets: NNCF's post-training quantisation of exported graphs with a target's own quantizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torchao.quantization.pt2e  # noqa: F401  (registers quantized_decomposed)
from torch import Tensor, fx
from torchao.quantization.pt2e.quantizer import Quantizer

from ..distill.methods import example_inputs, methods
from ..distill.student import Student
from .calibration import Samples
from .config import QuantizeConfig
from .nncf import load_nncf, range_estimator

# Builds a target's quantizer.
QuantizerFactory = Callable[[], Quantizer]

_QUANTIZE = torch.ops.quantized_decomposed.quantize_per_tensor.default
_DEQUANTIZE = torch.ops.quantized_decomposed.dequantize_per_tensor.default
# Which of refine's inputs are encode's outputs; both roles of a feature share one scale.
_SOURCES = {
    "original1": "feature1",
    "original2": "feature2",
    "original3": "feature3",
    "estimate2": "feature2",
    "estimate3": "feature3",
    "tokens": "tokens",
}
_OUTPUTS = ("feature1", "feature2", "feature3", "tokens", "assessment")


class _KeepFloat(Quantizer):
    """A target's quantizer, less what lies in the named modules."""

    def __init__(self, inner: Quantizer, modules: tuple[str, ...]) -> None:
        super().__init__()
        self._inner, self._modules = inner, modules

    def transform_for_annotation(self, model: fx.GraphModule) -> fx.GraphModule:
        return self._inner.transform_for_annotation(model)

    def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
        model = self._inner.annotate(model)
        for node in model.graph.nodes:
            paths = [path for path, _ in node.meta.get("nn_module_stack", {}).values()]
            if any(path.endswith(name) or f"{name}." in path for path in paths for name in self._modules):
                node.meta.pop("quantization_annotation", None)
            elif node.target is torch.ops.aten.conv_transpose2d.input:
                _per_tensor_weight(node)
        return model

    def validate(self, model: fx.GraphModule) -> None:
        self._inner.validate(model)


def _per_tensor_weight(node: fx.Node) -> None:
    """One scale for a transposed convolution's weight: NNCF 3.4 puts a channel's scale on the input axis, which no
    target runs in int8."""
    annotation = node.meta.get("quantization_annotation")
    weight = node.args[1]
    if annotation is None or weight not in annotation.input_qspec_map:
        return
    spec = annotation.input_qspec_map[weight]
    annotation.input_qspec_map[weight] = replace(spec, qscheme=torch.per_tensor_symmetric, ch_axis=None)


def export_graphs(student: Student, tile: int) -> dict[str, torch.export.ExportedProgram]:
    """Both methods as exported float programs for one tile size."""
    inputs = example_inputs(student, tile)
    with torch.no_grad():
        return {name: torch.export.export(m, inputs[name], strict=True) for name, m in methods(student).items()}


def quantize(
    student: Student, tile: int, factory: QuantizerFactory, samples: Samples, config: QuantizeConfig
) -> dict[str, fx.GraphModule]:
    """int8 graphs of both methods, by name; deterministic for the same samples and config."""
    nncf = load_nncf()
    from nncf.experimental.torch.fx import quantize_pt2e

    left_in_float = {"encode": config.encode_float, "refine": config.refine_float}
    graphs: dict[str, fx.GraphModule] = {}
    for name, program in export_graphs(student, tile).items():
        dataset = nncf.Dataset(samples[name], lambda row: row if len(row) > 1 else row[0])
        graphs[name] = quantize_pt2e(
            program.module(),
            _KeepFloat(factory(), left_in_float[name]),
            dataset,
            subset_size=len(samples[name]),
            fast_bias_correction=True if config.bias_correction else None,
            fold_quantize=True,
            activations_range_estimator_params=range_estimator(config.range),
        )
    share_boundary_scales(graphs["encode"], graphs["refine"])
    return graphs


def share_boundary_scales(encode: fx.GraphModule, refine: fx.GraphModule) -> None:
    """Give refine's inputs the scales encode's outputs left with, so that quantising them again is the identity."""
    output = next(node for node in encode.graph.nodes if node.op == "output")
    scales: dict[str, tuple[Any, ...]] = {}
    for name, node in zip(_OUTPUTS, output.args[0], strict=True):
        if node.op == "call_function" and node.target is _DEQUANTIZE:
            scales[name] = tuple(node.args[1:])
    for node in refine.graph.nodes:
        if node.op != "placeholder" or _SOURCES.get(node.name) not in scales:
            continue
        shared = scales[_SOURCES[node.name]]
        for user in list(node.users):
            if user.target is not _QUANTIZE:
                continue
            user.args = (node, *shared)
            for dequantize in list(user.users):
                dequantize.args = (dequantize.args[0], *shared)
    refine.recompile()


def run_graphs(graphs: dict[str, fx.GraphModule], method: str, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """A method of quantised graphs on the host, in PyTorch (the reference of every exported int8 program)."""
    with torch.no_grad():
        outputs: tuple[Tensor, ...] = graphs[method](*inputs)
    return outputs
