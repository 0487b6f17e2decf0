"""Would a program have stopped where the student stops, and opened the same experts? Replayed without a clock."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..runtime.controller import Controller, Kind, Policy
from ..runtime.cost import CostModel
from ..runtime.tiles import blend
from .losses import Compared, capped_db, mean
from .metrics import from_pixels, to_pixels
from .numerics import Decision, Outcome, Run
from .protocol import Array
from .trajectory import Trajectory

# An expert whose gate is smaller changes next to nothing.
OPEN = 0.1


def replay(trajectory: Trajectory, policy: Policy) -> tuple[Outcome, ...]:
    """The controller's decisions for every tile, fed with the recorded qualities.

    `trajectory` holds at least `policy.max_iterations` iterations of qualities; `policy` has no budget.
    """
    areas = trajectory.plan.areas if trajectory.plan is not None else [1.0]
    controller = Controller(policy, CostModel(), areas)
    while (action := controller.choose(0.0)).kind is not Kind.STOP:
        index, iteration = action.tile, controller.tiles[action.tile].iteration
        assessed, predicted, differences, prospect = trajectory.qualities[index]
        if action.kind is Kind.REFINE:
            controller.refined(index, predicted[iteration], 0.0, differences[iteration])
        elif action.kind is Kind.MIRROR:
            controller.mirrored(index, 0.0)
        else:
            controller.encoded(index, assessed[iteration], prospect, 0.0)
    assert controller.reason is not None
    return tuple(
        Outcome(stop=tile.iteration, kept=tile.best_iteration, reason=tile.done or controller.reason)
        for tile in controller.tiles
    )


def returned(trajectory: Trajectory, degraded: Array, outcomes: Sequence[Outcome]) -> Array:
    """The picture a caller would get: every tile from the iteration it keeps, 0 being the degraded picture."""
    versions = [degraded, *trajectory.pictures]
    if trajectory.plan is None or len({outcome.kept for outcome in outcomes}) == 1:
        return versions[outcomes[0].kept]
    pixels = [to_pixels(version) for version in versions]
    tiles = [pixels[o.kept][trajectory.plan.region(index).slices] for index, o in enumerate(outcomes)]
    return from_pixels(blend(tiles, trajectory.plan))


def decide(condition: str, runs: Sequence[Compared]) -> Decision:
    """Agreement of a program's decisions with the student's; stops are a tile's, gates a picture's."""
    outcomes = [pair for run, student in runs for pair in zip(run.outcomes, student.outcomes, strict=True)]
    # Picture × iteration × (program, student) × expert.
    gates = np.array(
        [
            [[list(gates.values()) for gates in pair] for pair in zip(run.gates, student.gates, strict=True)]
            for run, student in runs
        ]
    )
    same = ((gates[:, :, 0] >= OPEN) == (gates[:, :, 1] >= OPEN)).all(axis=-1)
    apart = np.abs(gates[:, :, 0] - gates[:, :, 1]).max(axis=-1)
    return Decision(
        condition=condition,
        candidate=runs[0].run.candidate,
        device=runs[0].run.device,
        pictures=len(runs),
        tiles=len(outcomes),
        same_stop=mean(mine.stop == student.stop for mine, student in outcomes),
        same_kept=mean(mine.kept == student.kept for mine, student in outcomes),
        same_gates=tuple(round(float(share), 5) for share in same.mean(axis=0)),
        gate_difference=tuple(round(float(value), 5) for value in apart.mean(axis=0)),
        mean_stop=(mean(mine.stop for mine, _ in outcomes), mean(student.stop for _, student in outcomes)),
        returned_drop_db=mean(capped_db(s.returned_psnr) - capped_db(run.returned_psnr) for run, s in runs),
        stop_cost_db=(mean(_stop_cost(run) for run, _ in runs), mean(_stop_cost(s) for _, s in runs)),
    )


def _stop_cost(run: Run) -> float:
    return max(capped_db(comparison.psnr) for comparison in run.truth) - capped_db(run.returned_psnr)
