"""A session that misbehaves."""

from __future__ import annotations

import time
from collections.abc import Callable

from burnish.runtime.backends import Encoded, Session
from burnish.runtime.backends.base import Array
from burnish.runtime.methods import REFINE


class Faulty:
    """A real session whose answers a test can spoil or delay."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.spoil: Callable[[Array], Array] = lambda restored: restored
        self.delay_s: Callable[[], float] = lambda: 0.0
        self.refines = 0

    def encode(self, image: Array) -> Encoded:
        return self.session.encode(image)

    def refine(
        self, current: Array, original: Encoded, estimate: Encoded, gates: Array, method: str = REFINE
    ) -> tuple[Array, float]:
        self.refines += 1
        time.sleep(self.delay_s())
        restored, quality = self.session.refine(current, original, estimate, gates, method)
        # Every further refine is said to be better, so that nothing but the test stops the loop.
        return self.spoil(restored), min(1.0, quality + 0.01 * self.refines)
