"""What a quantised graph's activations would be without rounding, and how much of them its ranges cut off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from .layers import WEIGHTED
from .ranges import DEQUANTIZE, QUANTIZE, range_of, sums_before_relu

# Share of a quantizer's values: so many more than with the graph's own weights may be cut off.
TOLERATED = 0.01
# Of a channel's values in one sample, so many may be cut off at either end, as when ranges are calibrated.
OUTLIERS = 1e-3


@dataclass
class Reach:
    """What one quantizer was given: its extremes and how many values its range (`lowest` to `highest`) cuts off.

    `operation` made the values, in or after `layer`. `channels`: (2, C) extremes by channel, where they were asked for.
    """

    layer: str
    operation: str
    lowest: float
    highest: float
    least: float = 0.0
    most: float = 0.0
    outside: int = 0
    count: int = 0
    channels: Tensor | None = None

    def see(self, values: Tensor, below_matters: bool) -> None:
        """Count values; what is below the range counts only if `below_matters`."""
        self.least, self.most = min(self.least, float(values.min())), max(self.most, float(values.max()))
        cut = values > self.highest
        if below_matters:
            cut |= values < self.lowest
        self.outside, self.count = self.outside + int(cut.sum()), self.count + values.numel()

    def see_channels(self, values: Tensor) -> None:
        """Extremes of values (1, C, H, W) by channel."""
        least, most = torch.quantile(values[0].flatten(1), torch.tensor([OUTLIERS, 1 - OUTLIERS]), dim=1)
        if self.channels is not None:
            least, most = torch.minimum(least, self.channels[0]), torch.maximum(most, self.channels[1])
        self.channels = torch.stack([least, most])

    @property
    def share(self) -> float:
        """Share of values outside."""
        return self.outside / max(self.count, 1)


class Unrounded(fx.Interpreter):
    """A quantised graph with its activations in float; `reaches` is what each quantizer was given, by the node's name.

    Of layers called `by_channel` channel by channel too.
    """

    def __init__(self, graph: fx.GraphModule, by_channel: str) -> None:
        super().__init__(graph)
        self.reaches: dict[str, Reach] = {}
        self._by_channel = by_channel
        # ReLU discards what these cut off below (`ranges.drop_what_relu_discards`).
        self._narrowed = {term for term, _ in sums_before_relu(graph)}

    def run_node(self, n: fx.Node) -> Any:
        source = n.args[0] if n.args else None
        if n.target is DEQUANTIZE and isinstance(source, fx.Node) and source.target is QUANTIZE:
            return self.env[source]
        if n.target is not QUANTIZE or not isinstance(source, fx.Node):
            return super().run_node(n)
        values: Tensor = self.env[source]
        reach = self.reaches.setdefault(n.name, Reach(*_origin(source), *range_of(n)))
        reach.see(values, n not in self._narrowed)
        if reach.layer.endswith(self._by_channel):
            reach.see_channels(values)
        return values

    @torch.no_grad()
    def __call__(self, *inputs: Tensor) -> Any:
        return self.run(*inputs)


def _origin(node: fx.Node) -> tuple[str, str]:
    """The layer whose weights a value was last multiplied with (or an input's name), and what was done to it since."""
    done = ""
    while node.op == "call_function" and node.target not in WEIGHTED:
        if not done and node.target not in (QUANTIZE, DEQUANTIZE):
            done = f"{getattr(node.target, '_opname', node.name)} after "
        node = next(argument for argument in node.args if isinstance(argument, fx.Node))
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    layer = next((path for path, _ in reversed(stack) if path), node.name)
    return layer, f"{done}{layer}"


def beyond(own: Mapping[str, Reach], other: Mapping[str, Reach]) -> list[tuple[Reach, Reach]]:
    """Quantizers that cut off more of another's activations than of the graph's own and is tolerated, the worst first."""
    pairs = [(own[name], reach) for name, reach in other.items() if reach.share > own[name].share + TOLERATED]
    return sorted(pairs, key=lambda pair: pair[0].share - pair[1].share)
