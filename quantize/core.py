"""The one core of torch targets: NNCF's post-training quantisation of exported graphs with a target's own quantizer."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import fx
from torchao.quantization.pt2e.quantizer import Quantizer, SharedQuantizationSpec

from ..distill.methods import example_inputs, methods
from ..distill.student import Student
from ..runtime.methods import ENCODE
from .calibration import Samples
from .config import QuantizeConfig
from .graphs import SUFFIX, export_graphs
from .nncf import load_nncf, range_estimator
from .ranges import ADD, DEQUANTIZE, QUANTIZE, RELU, centre, drop_what_relu_discards
from .rounding import round_weights


@dataclass(frozen=True)
class Target:
    """What a target may have in int8, and how. `symmetric`: its activations have zero-point 0."""

    quantizer: Callable[[], Quantizer]
    symmetric: bool = False


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
        dropped: set[fx.Node] = set()
        for node in model.graph.nodes:
            paths = [path for path, _ in node.meta.get("nn_module_stack", {}).values()]
            if any(path.endswith(name) or f"{name}." in path for path in paths for name in self._modules):
                dropped.add(node)
            elif node.target is torch.ops.aten.conv_transpose2d.input:
                _per_tensor_weight(node)
        for node in model.graph.nodes:  # in order, so that what shares with what shares is seen too
            if node in dropped or _shares_with(node, dropped) or _adds_to(node, dropped) or _between(node, dropped):
                dropped.add(node)
                node.meta.pop("quantization_annotation", None)
        return model

    def validate(self, model: fx.GraphModule) -> None:
        self._inner.validate(model)


def _shares_with(node: fx.Node, dropped: set[fx.Node]) -> bool:
    """Whether a node takes a range from one that is no longer quantised (a reshape from the convolution before it)."""
    annotation = node.meta.get("quantization_annotation")
    if annotation is None:
        return False
    specs = [annotation.output_qspec, *annotation.input_qspec_map.values()]
    sources = [spec.edge_or_node for spec in specs if isinstance(spec, SharedQuantizationSpec)]
    return any(part in dropped for source in sources for part in (source if isinstance(source, tuple) else (source,)))


def _adds_to(node: fx.Node, dropped: set[fx.Node]) -> bool:
    """Whether a node is a sum of something that stays in float, which it would round at once."""
    return node.target in ADD and any(argument in dropped for argument in node.args[:2])


def _between(node: fx.Node, dropped: set[fx.Node]) -> bool:
    """Whether a ReLU lies between layers that stay in float, and would round what they hand over."""
    return node.target in RELU and node.args[0] in dropped and all(user in dropped for user in node.users)


def _per_tensor_weight(node: fx.Node) -> None:
    """One scale for a transposed convolution's weight: NNCF 3.4 puts a channel's scale on the input axis, which no
    target runs in int8."""
    annotation = node.meta.get("quantization_annotation")
    weight = node.args[1]
    if annotation is None or weight not in annotation.input_qspec_map:
        return
    spec = annotation.input_qspec_map[weight]
    annotation.input_qspec_map[weight] = replace(spec, qscheme=torch.per_tensor_symmetric, ch_axis=None)


def quantize(
    student: Student, tile: int, target: Target, samples: Samples, config: QuantizeConfig
) -> dict[str, fx.GraphModule]:
    """int8 graphs of all methods, by name; deterministic for the same samples and config."""
    nncf = load_nncf()
    from nncf.experimental.torch.fx import quantize_pt2e

    graphs: dict[str, fx.GraphModule] = {}
    for name, program in export_graphs(student, tile).items():
        dataset = nncf.Dataset(samples[name], _arguments)
        with redirect_stdout(io.StringIO()):  # NNCF draws bars
            graphs[name] = quantize_pt2e(
                program.module(),
                _KeepFloat(target.quantizer(), config.left_in_float),
                dataset,
                subset_size=len(samples[name]),
                fast_bias_correction=True if config.rounding == "nearest" else None,
                fold_quantize=True,
                activations_range_estimator_params=range_estimator(config.outliers),
            )
        drop_what_relu_discards(graphs[name])
        if target.symmetric:
            centre(graphs[name])
    for name in student.refiners:
        share_boundary_scales(graphs[ENCODE], graphs[name])
    if config.rounding == "gptq":
        for name, method in methods(student).items():
            round_weights(graphs[name], method, samples[name], config.seed)
    return graphs


def _arguments(row: tuple[torch.Tensor, ...]) -> Any:
    """One sample as NNCF passes it on: the tensor itself where there is one input."""
    return row[0] if len(row) == 1 else row


def share_boundary_scales(encode: fx.GraphModule, refine: fx.GraphModule) -> None:
    """Give refine's inputs the scales encode's outputs left with, so that quantising them again is the identity."""
    nodes: list[Any] = list(encode.graph.nodes)
    output = next(node for node in nodes if node.op == "output")
    scales: dict[str, tuple[Any, ...]] = {}
    for name, node in zip(_OUTPUTS, output.args[0], strict=True):
        if node.op == "call_function" and node.target is DEQUANTIZE:
            scales[name] = tuple(node.args[1:])
    for node in refine.graph.nodes:
        if node.op != "placeholder" or _SOURCES.get(node.name) not in scales:
            continue
        shared = scales[_SOURCES[node.name]]
        for user in list(node.users):
            if user.target is not QUANTIZE:
                continue
            user.args = (node, *shared)
            for dequantize in list(user.users):
                dequantize.args = (dequantize.args[0], *shared)
    refine.recompile()


def write(graphs: Mapping[str, fx.GraphModule], student: Student, tile: int, folder: Path) -> None:
    """Save quantised graphs as METHOD.pt2, for exporters to lower."""
    inputs = example_inputs(student, tile)
    for name, graph in graphs.items():
        torch.export.save(torch.export.export(graph, inputs[name], strict=True), folder / f"{name}{SUFFIX}")
