"""A quick judgement of a candidate program that is in no bundle yet: the gate over a few tiles of dev photographs.

What runs below this package (a precision search) takes an `Evaluator` as its `evaluate(candidate) -> Report`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..distill.data import list_pictures
from ..distill.recipe import Frozen
from ..distill.weights import Trained
from ..runtime.backends import Session
from ..runtime.errors import InputError
from ..runtime.pictures import read
from ..runtime.tiles import cut, plan_tiles
from .eager import EagerSession
from .gate import Gate
from .numerics import Measurement
from .pairs import Pair
from .protocol import degraded, load_protocol
from .scores import Scorer
from .summary import summarise
from .trajectory import run_session


class Trial(Frozen):
    """What to try a candidate on: the middle tile of the first photographs of a folder, under conditions of the protocol."""

    photos: Path
    pictures: int = 4
    conditions: tuple[str, ...] = ()
    iterations: int = 2
    gate: Gate = Gate()


class Evaluator:
    """Measures candidate sessions against the full-precision student, whose own trajectories are run once."""

    def __init__(self, trained: Trained, tile: int, trial: Trial) -> None:
        """Raises InputError for an unknown condition or a folder without photographs."""
        known = {condition.name: condition for condition in load_protocol().conditions}
        unknown = [name for name in trial.conditions if name not in known]
        if unknown:
            raise InputError(
                f"unknown condition {unknown[0]!r}; expected some of the names in benchmarks/protocol.json"
            )
        self._trial, self._routing, self._rank = trial, trained.routing, trained.student.config.rank
        student = EagerSession(trained.student)
        self._scorers: list[Scorer] = []
        for path in list_pictures(trial.photos)[: trial.pictures]:
            rgb = read(path).rgb
            plan = plan_tiles(rgb.shape[0], rgb.shape[1], tile)
            clean = np.ascontiguousarray(cut(rgb, plan, len(plan) // 2)[0].transpose(1, 2, 0))
            for name in trial.conditions or known:
                pair = Pair(path.name, degraded(known[name], path.name, clean), clean)
                trajectory = run_session(student, self._routing, self._rank, pair.degraded, trial.iterations)
                self._scorers.append(Scorer(known[name], pair, trajectory))

    def __call__(self, candidate: Session, program: str) -> Measurement:
        """Every figure of a validation, of the loaded `candidate`; `program` (target-precision) chooses its limits.

        `.passed` says whether the gate holds, `.drops(program)` the mean loss in dB by condition and iteration.
        """
        runs = [scorer.student for scorer in self._scorers]
        for scorer in self._scorers:
            picture = scorer.pair.degraded
            trajectory = run_session(candidate, self._routing, self._rank, picture, self._trial.iterations)
            runs.append(scorer.score(trajectory, program))
        return summarise(runs, self._trial.gate, self._trial.iterations)
