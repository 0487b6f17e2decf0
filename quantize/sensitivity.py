"""What each layer's rounding costs the restored picture."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from ..distill.methods import methods
from ..distill.student import Student
from ..runtime.methods import ENCODE, REFINE
from .calibration import Samples
from .layers import TRANSPOSED, layers
from .ranges import DEQUANTIZE, QUANTIZE

# Mean squared error below which int8's distance from the student does not matter: 50 dB.
FLOOR = 1e-5


class Sensitivity(NamedTuple):
    """A layer by its path in the student; `gain_db`: how much nearer pictures are to the student's without its rounding."""

    layer: str
    gain_db: float
    parameters: int
    multiply_adds: int


@torch.no_grad()
def sensitivities(
    graphs: Mapping[str, fx.GraphModule], student: Student, samples: Samples, pictures: int = 8
) -> list[Sensitivity]:
    """Every layer of encode and refine as quantised graphs, the costliest first; `student`: the one they were made from.

    Specialists have refine's layers, and what stays in float there does in them.

    A layer's activations are left unrounded, one layer at a time, in the graph; rounding of its weights stays, which a
    scale a channel and GPTQ make small beside. Evenly over `pictures` of the samples.
    """
    rows = _rows(student, samples, pictures)
    base = _distance(graphs, rows)
    found: list[Sensitivity] = []
    for graph in (graphs[ENCODE], graphs[REFINE]):
        for layer, nodes in layers(graph).items():
            with _unrounded(graph, nodes):
                gain = base - _distance(graphs, rows)
            parameters = sum(p.numel() for p in student.get_submodule(layer).parameters())
            found.append(Sensitivity(layer, gain, parameters, sum(map(_multiply_adds, nodes))))
    return sorted(found, key=lambda row: -row.gain_db)


class _Row(NamedTuple):
    """A picture to encode and refine, and what the student makes of it."""

    degraded: Tensor
    gates: Tensor
    restored: Tensor


def _rows(student: Student, samples: Samples, pictures: int) -> list[_Row]:
    encode, refine = (methods(student)[name] for name in (ENCODE, REFINE))
    step = max(1, len(samples["encode"]) // pictures)
    rows: list[_Row] = []
    for (image,), (*_, gates) in list(zip(samples["encode"], samples["refine"], strict=True))[::step]:
        *features, tokens, _ = encode(image)
        rows.append(_Row(image, gates, refine(image, *features, *features[1:], tokens, gates)[0]))
    return rows


def _distance(graphs: Mapping[str, fx.GraphModule], rows: list[_Row]) -> float:
    """Mean distance of first iterations from the student's, in dB above the floor."""
    total = 0.0
    for row in rows:
        *features, tokens, _ = graphs["encode"](row.degraded)
        restored = graphs["refine"](row.degraded, *features, *features[1:], tokens, row.gates)[0]
        error = (restored.clamp(0, 1) - row.restored.clamp(0, 1)).square().mean()
        total += 10 * float(torch.log10(1 + error / FLOOR))
    return total / len(rows)


def _rounded(argument: Any) -> bool:
    return (
        isinstance(argument, fx.Node)
        and argument.target is DEQUANTIZE
        and getattr(argument.args[0], "target", None) is QUANTIZE
    )


@contextmanager
def _unrounded(graph: fx.GraphModule, nodes: list[fx.Node]) -> Generator[None]:
    """The graph without the rounding of what the nodes read and write."""
    before: list[tuple[fx.Node, tuple[Any, ...]]] = []

    def bypass(reader: fx.Node, rounded: fx.Node) -> None:
        quantizer: Any = rounded.args[0]
        before.append((reader, reader.args))
        reader.args = tuple(quantizer.args[0] if argument is rounded else argument for argument in reader.args)

    for node in nodes:
        for argument in node.args:
            if _rounded(argument):
                bypass(node, argument)  # type: ignore[arg-type]
        for quantizer in [user for user in node.users if user.target is QUANTIZE]:
            for rounded in tuple(quantizer.users):
                for reader in tuple(rounded.users):
                    if any(argument is rounded for argument in reader.args):
                        bypass(reader, rounded)
    graph.recompile()
    yield
    for reader, arguments in reversed(before):
        reader.args = arguments
    graph.recompile()


def _multiply_adds(node: fx.Node) -> int:
    """From the shapes a convolution or linear layer was exported with."""
    weight: Any = node.args[1]
    output, kernel = node.meta["val"].shape, weight.meta["val"].shape
    if node.target is TRANSPOSED:  # stride 2, kernel 2: every output position is reached from one input position
        return output[1] * kernel[0] * output[2] * output[3]
    positions = output[2] * output[3] if len(kernel) == 4 else output.numel() // kernel[0]
    return positions * kernel.numel()
