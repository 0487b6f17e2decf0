"""Mixed precision: the fewest layers that must stay in float for a target's loaded program to pass the gate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from torch import fx

from ..distill.student import Student
from . import core
from .calibration import Samples
from .config import QuantizeConfig
from .sensitivity import Sensitivity, sensitivities


class Report(Protocol):
    """What an evaluation says of a program."""

    @property
    def passed(self) -> bool: ...


# Lowers quantised graphs, loads the program and judges it.
Evaluate = Callable[[Mapping[str, fx.GraphModule]], Report]


class Found(NamedTuple):
    """Graphs that pass, the layers that stay in float beside the configured ones, and how often programs were judged; `plain`:
    the graphs without those layers.
    """

    graphs: dict[str, fx.GraphModule]
    layers: tuple[Sensitivity, ...]
    passed: bool
    evaluations: int
    plain: dict[str, fx.GraphModule]

    @property
    def extra_bytes(self) -> int:
        """What the layers' weights take more in float: four bytes each instead of one."""
        return 3 * sum(layer.parameters for layer in self.layers)


def search(
    student: Student,
    tile: int,
    target: core.Target,
    samples: Samples,
    config: QuantizeConfig,
    evaluate: Evaluate,
    progress: Callable[[str], None],
) -> Found:
    """Keep the costliest layers in float, as few as pass: their number is doubled until the gate holds, then bisected.

    Layers are ranked by `sensitivities`. `passed` is False when not even all of them suffice; the graphs are then plain int8.
    """
    plain = core.quantize(student, tile, target, samples, config)
    if evaluate(plain).passed:
        return Found(plain, (), True, 1, plain)
    ranking = [row for row in sensitivities(plain, student, samples) if row.gain_db > 0]
    evaluations = 1
    best: dict[str, fx.GraphModule] | None = None

    def passes(count: int) -> bool:
        nonlocal evaluations, best
        progress(f"{count} of {len(ranking)} layers in float")
        kept = tuple(row.layer for row in ranking[:count])
        graphs = core.quantize(
            student, tile, target, samples, config.model_copy(update={"left_in_float": (*config.left_in_float, *kept)})
        )
        evaluations += 1
        if evaluate(graphs).passed:
            best = graphs
            return True
        return False

    too_few, enough = 0, 1
    while not passes(min(enough, len(ranking))):
        if enough >= len(ranking):
            return Found(plain, (), False, evaluations, plain)
        too_few, enough = enough, 2 * enough
    enough = min(enough, len(ranking))
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if passes(middle):
            enough = middle
        else:
            too_few = middle
    assert best is not None
    return Found(best, tuple(ranking[:enough]), True, evaluations, plain)
