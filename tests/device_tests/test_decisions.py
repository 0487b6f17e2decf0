"""Stops replayed by the real controller from recorded qualities, and the picture they lead to."""

from __future__ import annotations

import numpy as np
import pytest
from burnish.device_tests.decisions import replay, returned
from burnish.device_tests.trajectory import Qualities, Trajectory
from burnish.runtime.controller import Policy, Stop
from burnish.runtime.routing import Prospect
from burnish.runtime.tiles import plan_tiles

PLAN = plan_tiles(64, 96, 64)  # two tiles that share 32 columns


def flat(*levels: float, height: int = 64, width: int = 64) -> tuple[np.ndarray, ...]:
    return tuple(np.full((height, width, 3), level, np.float32) for level in levels)


def consistent(*qualities: float) -> Qualities:
    """Encode says of a picture what refine said of it; views differ."""
    differences = (0.0, *[0.01] * (len(qualities) - 2))
    return Qualities(qualities[:-1], qualities[1:], differences, Prospect(1.0, 0.1, upright=False))


@pytest.mark.parametrize(
    ("qualities", "stop", "kept", "reason"),
    [
        ((0.3, 0.5, 0.6, 0.7), 3, 3, Stop.ITERATIONS),
        ((0.3, 0.5, 0.6, 0.5), 3, 2, Stop.REGRESSION),
        ((0.6, 0.5, 0.9, 0.9), 1, 0, Stop.REGRESSION),
    ],
)
def test_one_tile(qualities: tuple[float, ...], stop: int, kept: int, reason: Stop) -> None:
    degraded, *pictures = flat(0.2, 0.4, 0.6, 0.8)
    trajectory = Trajectory(tuple(pictures), None, (consistent(*qualities),))
    (outcome,) = outcomes = replay(trajectory, Policy(max_iterations=3))
    assert (outcome.stop, outcome.kept, outcome.reason) == (stop, kept, reason)
    assert returned(trajectory, degraded, outcomes)[0, 0, 0] == pytest.approx(0.2 + 0.2 * kept)


def test_tiles_stop_by_themselves_and_are_blended() -> None:
    degraded, *pictures = flat(0.2, 0.4, 0.6, 0.8, width=96)
    trajectory = Trajectory(tuple(pictures), PLAN, (consistent(0.3, 0.5, 0.6, 0.7), consistent(0.3, 0.5, 0.4, 0.9)))
    outcomes = replay(trajectory, Policy(max_iterations=3))
    assert [(o.stop, o.kept) for o in outcomes] == [(3, 3), (2, 1)]
    line = returned(trajectory, degraded, outcomes)[0, :, 0]
    assert (line[0], line[-1]) == (pytest.approx(0.8), pytest.approx(0.4))
    assert (np.diff(line) <= 0).all()
