"""Layers of a quantised graph and their weights: codes, scales, zero-points."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import fx

from .ranges import DEQUANTIZE

TRANSPOSED = torch.ops.aten.conv_transpose2d.input
WEIGHTED = (torch.ops.aten.conv2d.default, torch.ops.aten.linear.default, TRANSPOSED)
_DEQUANTIZE_CHANNELS = torch.ops.quantized_decomposed.dequantize_per_channel.default


def layers(graph: fx.GraphModule) -> dict[str, list[fx.Node]]:
    """Convolutions and linear layers with rounded weights, by the module of the student that they come from."""
    found: dict[str, list[fx.Node]] = {}
    for node in graph.graph.nodes:
        if node.target in WEIGHTED and node.args[1].op == "call_function":
            *_, (path, _) = node.meta["nn_module_stack"].values()
            found.setdefault(path, []).append(node)
    return found


def weights(graph: fx.GraphModule) -> Iterator[tuple[Any, str]]:
    """Every dequantised weight, those of a dictionary too, and the name of its codes."""
    for node in graph.graph.nodes:
        if node.target is _DEQUANTIZE_CHANNELS or (node.target is DEQUANTIZE and node.args[0].op == "get_attr"):
            yield node, str(node.args[0].target)


def attribute(graph: fx.GraphModule, name: str) -> Any:
    """A tensor of the graph by its dotted name."""
    value: Any = graph
    for part in name.split("."):
        value = getattr(value, part)
    return value


def parameters(graph: fx.GraphModule, weight: fx.Node) -> tuple[Any, ...]:
    """Scale, zero-point and, of a scale a channel, its axis: of one of `weights`."""

    def value(argument: Any) -> Any:
        return attribute(graph, str(argument.target)) if isinstance(argument, fx.Node) else argument

    return tuple(map(value, weight.args[1:-3]))


def steps(graph: fx.GraphModule, weight: fx.Node, dimensions: int) -> tuple[Any, Any]:
    """Scale and zero-point of one of `weights` in a shape that its codes of so many dimensions broadcast with."""
    scale, zero, *axis = parameters(graph, weight)
    if not axis:
        return scale, zero
    along = [-1 if dimension == axis[0] else 1 for dimension in range(dimensions)]
    return scale.reshape(along), zero.reshape(along)
