"""Gathers the steps of tiles into rows of the whole picture, a row a round of iterations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .quality import mse_to_quality, quality_to_mse
from .restoration import Step


@dataclass
class _Sums:
    """What a row will be made of."""

    cost_ms: float = 0.0
    elapsed_ms: float = 0.0
    area: float = 0.0
    error: float = 0.0
    gates: dict[str, float] = field(default_factory=dict)
    degradations: dict[str, float] = field(default_factory=dict)

    def add(self, area: float, gates: Mapping[str, float], degradations: Mapping[str, float]) -> None:
        self.area += area
        for total, values in ((self.gates, gates), (self.degradations, degradations)):
            for name, value in values.items():
                total[name] = total.get(name, 0.0) + area * value

    def row(self, iteration: int, quality: float) -> Step:
        gates, degradations = (
            {name: value / self.area for name, value in total.items()} for total in (self.gates, self.degradations)
        )
        return Step(iteration, quality, self.cost_ms, self.elapsed_ms, gates, degradations)


class Rounds:
    """Round n is over when every tile had n iterations or is done; what comes after the last whole round is a row too."""

    def __init__(self, areas: list[float]) -> None:
        self._areas = areas
        self._rows: list[Step] = []
        self._start, self._now = _Sums(), _Sums()
        self._done: set[int] = set()
        self._iterations = [0] * len(areas)
        self._missing = set(range(len(areas)))
        self.begun = 0

    @property
    def open(self) -> bool:
        """Whether tiles were refined since the last row."""
        return self._now.area > 0

    def spent(self, ms: float, elapsed_ms: float, first: bool) -> None:
        """A step took `ms`; `first`: it belongs to the assessment of the picture as it came."""
        sums = self._start if first else self._now
        sums.cost_ms += ms
        sums.elapsed_ms = elapsed_ms

    def started(self, index: int, quality: float, degradations: Mapping[str, float]) -> None:
        """A tile of the picture as it came was assessed."""
        self._start.add(self._areas[index], {}, degradations)
        self._start.error += self._areas[index] * quality_to_mse(quality)

    def refined(self, index: int, gates: Mapping[str, float], degradations: Mapping[str, float]) -> None:
        """A tile had one more iteration."""
        self._now.add(self._areas[index], gates, degradations)

    def reached(self, index: int, iteration: int, done: bool, quality: float) -> bool:
        """A tile got so far; whether that ended the round, with the picture's `quality`."""
        self._iterations[index] = iteration
        if done:
            self._done.add(index)
        if iteration >= self._round or done:
            if index in self._missing and self._round == 1:
                self.begun += 1
            self._missing.discard(index)
        if self._missing or not self.open:
            return False
        self._rows = self.rows(quality)
        self._now = _Sums()
        self._missing = {i for i, n in enumerate(self._iterations) if n < self._round and i not in self._done}
        return True

    def rows(self, quality: float) -> list[Step]:
        """All rows so far, with what the current round has done; `quality`: the picture's now."""
        rows = list(self._rows)
        if not rows and self._start.area > 0:
            rows.append(self._start.row(0, self._start_quality()))
        if self.open:
            rows.append(self._now.row(len(rows), quality))
        return rows

    @property
    def _round(self) -> int:
        return max(1, len(self._rows))

    def _start_quality(self) -> float:
        return mse_to_quality(self._start.error / self._start.area)
