"""Activation ranges: which values a quantizer must tell apart."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import torch
from torch import fx

import_module("torchao.quantization.pt2e")  # registers their operators
QUANTIZE = torch.ops.quantized_decomposed.quantize_per_tensor.default
DEQUANTIZE = torch.ops.quantized_decomposed.dequantize_per_tensor.default
ADD = (torch.ops.aten.add.Tensor, torch.ops.aten.add_.Tensor)
RELU = (torch.ops.aten.relu.default, torch.ops.aten.relu_.default)


def drop_what_relu_discards(graph: fx.GraphModule) -> None:
    """Narrow ranges of terms of a sum that goes through ReLU.

    A term below the negative of the largest value of the other makes the sum negative, and ReLU zero: saturating there
    changes nothing. Branches of residual blocks reach far below that, since nothing in training holds them back.
    """
    for term, most in sums_before_relu(graph):
        lowest, highest = range_of(term)
        if lowest < -max(most, 0.0):
            _set_range(term, -max(most, 0.0), max(highest, 0.0))
    graph.recompile()


def centre(graph: fx.GraphModule) -> None:
    """Give every activation the zero-point 0, by a range as wide on either side of zero.

    NNCF shifts the range of what is never negative, also where a quantizer asks for a symmetric one.
    """
    for node in graph.graph.nodes:
        if node.target is QUANTIZE:
            reach = max(abs(bound) for bound in range_of(node))
            _set_parameters(node, max(reach, 1e-8) / node.args[4], 0)
    graph.recompile()


def sums_before_relu(graph: fx.GraphModule) -> Iterator[tuple[fx.Node, float]]:
    """Quantizers of terms that a sum alone reads which only ReLU reads, each with the largest value of the other term.

    The other term may be read by more, as a residual block's input is; where the sum reads it in float, its largest value is
    that of what rounds it for others.
    """
    for node in graph.graph.nodes:
        if node.target not in ADD or not all(user.target in RELU for user in node.users):
            continue
        one, two = node.args[:2]
        for argument, other in ((one, two), (two, one)):
            term, most = _quantizer(argument), _largest(other)
            if term is not None and most is not None and len(term.users) == len(argument.users) == 1:
                yield term, most


def _quantizer(argument: Any) -> fx.Node | None:
    if not isinstance(argument, fx.Node) or argument.target is not DEQUANTIZE:
        return None
    quantizer = argument.args[0]
    return quantizer if isinstance(quantizer, fx.Node) and quantizer.target is QUANTIZE else None


def _largest(value: Any) -> float | None:
    own = _quantizer(value)
    quantizers = [user for user in getattr(value, "users", ()) if user.target is QUANTIZE] if own is None else [own]
    return max((range_of(quantizer)[1] for quantizer in quantizers), default=None)


def range_of(quantizer: Any) -> tuple[float, float]:
    scale, zero, lowest, highest = quantizer.args[1:5]
    return (lowest - zero) * scale, (highest - zero) * scale


def _set_range(quantizer: Any, lowest: float, highest: float) -> None:
    low_code, high_code = quantizer.args[3:5]
    scale = max(highest - lowest, 1e-8) / (high_code - low_code)
    zero = min(max(round(low_code - lowest / scale), low_code), high_code)
    _set_parameters(quantizer, scale, zero)


def _set_parameters(quantizer: Any, scale: float, zero: int) -> None:
    parameters = (scale, zero, *quantizer.args[3:6])
    quantizer.args = (quantizer.args[0], *parameters)
    for user in tuple(quantizer.users):
        user.args = (user.args[0], *parameters)
