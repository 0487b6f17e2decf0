"""What programs take beside each other in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ..runtime.backends import Session
from ..runtime.routing import Routing, gate_tensor, given_gates

# The first rounds allocate.
WARM_UP = 2


class Timing(NamedTuple):
    """Median milliseconds of one encode and of one refine."""

    encode_ms: float
    refine_ms: float

    @property
    def iteration_ms(self) -> float:
        """Milliseconds of one of each."""
        return self.encode_ms + self.refine_ms


def interleaved(
    sessions: Mapping[str, Session], tile: int, routing: Routing, rank: int, rounds: int
) -> dict[str, Timing]:
    """Every session's times on noise of `tile` pixels a side. Machines are noisy: every round runs every session once, so that
    medians can be compared.
    """
    picture = np.random.default_rng(0).random((1, 3, tile, tile), np.float32)
    gates = gate_tensor(routing, given_gates(routing, {routing.leaves[0]: 1.0}), rank)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sessions}
    for _ in range(WARM_UP + rounds):
        for name, session in sessions.items():
            began = time.perf_counter()
            encoded = session.encode(picture)
            between = time.perf_counter()
            session.refine(picture, encoded, encoded, gates)
            times[name].append(((between - began) * 1e3, (time.perf_counter() - between) * 1e3))
    return {name: Timing(*map(statistics.median, zip(*rows[WARM_UP:], strict=True))) for name, rows in times.items()}
