"""Weights rounded for what they read: those still to be rounded make up for the error of those that were.

GPTQ (Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", ICLR 2023, algorithm
1). Features after ReLU are far from zero on the mean, so that the errors of rounding to the nearest code add up to a shift of
whole channels, and of the restored picture's light.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from .layers import attribute, layers, steps

# Positions of a layer's input that are read of a sample.
POSITIONS = 1500
# Share of the mean square of its inputs that is added to each, so that what hardly varies is not relied on.
DAMPING = 0.01


@torch.no_grad()
def round_weights(graph: fx.GraphModule, method: nn.Module, rows: Iterable[tuple[Tensor, ...]], seed: int) -> None:
    """Choose anew the codes of every layer's weights, in place; scales stay.

    `method`: whose graph it is; `rows`: its inputs, over which a layer's output is to change least.
    """
    modules = {node: method.get_submodule(path) for path, nodes in layers(graph).items() for node in nodes}
    inputs = _Inputs(graph, modules, seed)
    for row in rows:
        inputs.run(*row)
    for node, module in modules.items():
        _round(graph, node.all_input_nodes[1], module, inputs.products[node])


class _Inputs(fx.Interpreter):
    """Runs a graph and sums x xᵀ over what the nodes of `modules` read at a position: `products`, float64 (inputs, inputs)."""

    def __init__(self, graph: fx.GraphModule, modules: Mapping[fx.Node, nn.Module], seed: int) -> None:
        super().__init__(graph)
        self._modules = modules
        self.products = dict.fromkeys(modules, torch.zeros((), dtype=torch.float64))
        self._chance = torch.Generator().manual_seed(seed)

    def run_node(self, n: fx.Node) -> Any:
        if n in self._modules:
            read = _positions(self._modules[n], self.env[n.all_input_nodes[0]])
            chosen = read[torch.randperm(len(read), generator=self._chance)[:POSITIONS]]
            self.products[n] = self.products[n] + (chosen.T @ chosen).double()
        return super().run_node(n)


def _positions(module: nn.Module, read: Tensor) -> Tensor:
    """What a layer reads, a row for every position: of its output, of a transposed convolution of its input."""
    if isinstance(module, nn.Conv2d):
        read = functional.unfold(
            read, module.kernel_size, padding=cast(tuple[int, int], module.padding), stride=module.stride
        )
    # A transposed convolution of stride 2 and kernel 2 reaches every output position from one input position.
    return read.reshape(-1, read.shape[-1]) if isinstance(module, nn.Linear) else read.movedim(1, -1).flatten(0, -2)


def _round(graph: fx.GraphModule, dequantized: fx.Node, module: nn.Module, products: Tensor) -> None:
    """Write the codes of a layer's weight, as a matrix of outputs and inputs."""
    codes = attribute(graph, str(dequantized.all_input_nodes[0].target))
    scale, zero = (torch.as_tensor(part).expand(codes.shape) for part in steps(graph, dequantized, codes.ndim))
    lowest, highest = cast(tuple[int, int], dequantized.args[-3:-1])
    parts = (codes, cast(Tensor, module.weight) / scale, zero)
    # A transposed convolution's inputs come first. What is written to `stored` is written to the codes.
    stored, weight, zero = (part.movedim(0, -1) for part in parts) if isinstance(module, nn.ConvTranspose2d) else parts
    weight, zero = (part.reshape(-1, len(products)).double() for part in (weight, zero))
    rounded = _compensated(weight, lowest - zero, highest - zero, products)
    stored.copy_((rounded + zero).reshape(stored.shape))


def _compensated(weight: Tensor, lowest: Tensor, highest: Tensor, products: Tensor) -> Tensor:
    """Whole numbers for `weight` (outputs, inputs) that change weight · x least; the most active input is rounded first."""
    activity = products.diagonal()
    order = activity.argsort(descending=True)
    damped = products + torch.eye(len(products), dtype=products.dtype) * (DAMPING * activity.mean() + 1e-12)
    pull = torch.linalg.cholesky(torch.linalg.inv(damped[order][:, order]), upper=True)
    left, lowest, highest = weight[:, order], lowest[:, order], highest[:, order]
    codes = torch.empty_like(left)
    for column in range(len(order)):
        codes[:, column] = left[:, column].round().clamp(lowest[:, column], highest[:, column])
        error = (left[:, column] - codes[:, column]) / pull[column, column]
        left[:, column:] -= error[:, None] * pull[column, column:]
    return codes[:, order.argsort()]
