"""Restore, assess, repeat: the loop that drives a loaded program under the controller's decisions."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import backends
from .backends import Encoded, Session
from .bundle import EMBEDDED, Bundle, Calibration, Program
from .controller import Action, Controller, Policy, Stop
from .cost import CostModel
from .errors import BackendError
from .pictures import Picture, from_array, read, to_array
from .routing import Gates, gate_tensor, given_gates, route
from .tiles import TilePlan, blend, cut, plan_tiles

Array = NDArray[np.float32]
# Encoded originals kept between iterations; further tiles are encoded again, which bounds memory.
KEPT_TILES = 48


@dataclass(frozen=True)
class Step:
    """One row of a trace: iteration 0 is the picture as it came."""

    iteration: int
    quality: float
    cost_ms: float
    elapsed_ms: float
    gates: Gates
    degradations: dict[str, float]


@dataclass(frozen=True)
class Restoration:
    """The result, and how it came about. `steps_rgb` holds every iteration's picture when a trace was asked for."""

    picture: Picture
    iteration: int
    quality: float
    reason: Stop
    elapsed_ms: float
    steps: tuple[Step, ...]
    tiles: int
    program: str
    backend: str
    steps_rgb: tuple[Array, ...] = ()

    @property
    def pixels(self) -> NDArray[Any]:
        """uint8 (uint16 for 16-bit input) H×W×C, channels as they came in."""
        return to_array(self.picture)


class _OutOfTime(Exception):
    """A pass over the tiles would miss the deadline; the last complete picture stands."""


class Restorer:
    """A loaded program of a bundle, ready to restore pictures of any size. Not for several threads at once."""

    def __init__(self, bundle: Bundle, program: Program, backend: str, session: Session) -> None:
        self.bundle, self.program, self.backend = bundle, program, backend
        self._session = session
        self._tile = bundle.manifest.tile
        self._routing, self._rank = bundle.manifest.routing, bundle.manifest.student.rank
        self._calibration: Calibration = program.calibration
        self._cost = CostModel()

    @classmethod
    def load(
        cls,
        bundle: str | Path | None = None,
        *,
        backend: str = "auto",
        program: str | None = None,
        threads: int | None = None,
        warm_up: bool = True,
    ) -> Restorer:
        """Load a bundle (None: the embedded one) and a program of it that this machine runs.

        `warm_up` runs both methods a few times so that the first budget is kept from a measured cost. Raises BundleError
        for a damaged bundle, BackendError when nothing here can run it.
        """
        opened = Bundle.open(EMBEDDED if bundle is None else Path(bundle))
        name, chosen = backends.choose(opened, backend, program)
        restorer = cls(opened, chosen, name, backends.load(opened, name, chosen, threads))
        if warm_up:
            restorer._warm_up()
        return restorer

    def _warm_up(self, repetitions: int = 3) -> None:
        blank = np.full((1, 3, self._tile, self._tile), 0.5, np.float32)
        gates = gate_tensor(self._routing, given_gates(self._routing, {}), self._rank)
        for repetition in range(repetitions + 1):
            began = time.perf_counter()
            encoded = self._session.encode(blank)
            between = time.perf_counter()
            self._session.refine(blank, encoded, encoded, gates)
            if repetition:  # the first run allocates
                ended = time.perf_counter()
                self._cost = self._cost.observe(encode_ms=(between - began) * 1e3, refine_ms=(ended - between) * 1e3)

    def restore(
        self,
        image: NDArray[Any] | Picture | str | Path,
        *,
        budget_ms: float | None = None,
        min_quality: float | None = None,
        max_iterations: int = 4,
        min_iterations: int = 0,
        min_gain: float = 0.0,
        rollback: bool = True,
        degradations: Mapping[str, float] | None = None,
        keep_steps: bool = False,
    ) -> Restoration:
        """Restore a picture: uint8 or uint16 H×W×3 (or grey, or with alpha), a `Picture`, or a file's path.

        The call returns within `budget_ms` (reading a file does not count): when no iteration fits, the answer is the
        picture itself and `reason` is "budget". `min_quality` in [0, 1] stops early. `degradations` sets the experts'
        gates by hand. Raises InputError for a picture that cannot be used.
        """
        if isinstance(image, str | Path):
            image = read(Path(image))
        began = time.perf_counter()
        picture = image if isinstance(image, Picture) else from_array(image)
        policy = Policy(
            budget_ms=budget_ms,
            min_quality=min_quality,
            max_iterations=max_iterations,
            min_iterations=min_iterations,
            min_gain=min_gain,
            rollback=rollback,
        )
        fixed = None if degradations is None else given_gates(self._routing, degradations)
        run = _Run(self, picture.rgb, policy, fixed, keep_steps, began)
        return run.finish(picture)


class _Run:
    """The state of one call of `restore`."""

    def __init__(
        self, restorer: Restorer, rgb: Array, policy: Policy, fixed: Gates | None, keep_steps: bool, began: float
    ) -> None:
        self.restorer, self.session = restorer, restorer._session
        self.rgb, self.fixed, self.keep_steps, self.began = rgb, fixed, keep_steps, began
        self.plan: TilePlan = plan_tiles(rgb.shape[0], rgb.shape[1], restorer._tile)
        self.count = len(self.plan.origins)
        self.controller = Controller(policy, restorer._cost.scaled(self.count))
        self.originals: list[Encoded | None] = [None] * self.count
        self.currents: list[Array] = [cut(rgb, self.plan, i) for i in range(self.count)]
        self.pictures: list[Array] = [rgb]
        self.steps: list[Step] = []
        self.controller.elapsed_ms = self._elapsed()

    def _elapsed(self) -> float:
        return (time.perf_counter() - self.began) * 1e3

    def _check(self, tile: int, tile_ms: float) -> None:
        """Leave a pass whose remaining tiles would miss the deadline."""
        policy = self.controller.policy
        if policy.budget_ms is None or self.controller.iteration < policy.min_iterations:
            return
        if self._elapsed() + tile_ms * (self.count - tile) > policy.budget_ms:
            raise _OutOfTime

    def _encode(self) -> tuple[list[Encoded | None], float, Gates, dict[str, float]]:
        """Encode every tile's current picture; gates and beliefs come from the mean assessment, so tiles agree."""
        estimates: list[Encoded | None] = []
        totals = np.zeros(2 + len(self.restorer._routing.leaves))
        tile_ms = self.controller.cost.encode.mean / self.count
        for i, current in enumerate(self.currents):
            self._check(i, tile_ms)
            encoded = self.session.encode(np.clip(current, 0, 1))
            totals += np.array([encoded.quality, encoded.granularity, *encoded.logits])
            estimates.append(encoded if i < KEPT_TILES else None)
        quality, granularity, *logits = (float(v) for v in totals / self.count)
        routing = self.restorer._routing
        gates = self.fixed or route(routing, granularity, logits)
        beliefs = {leaf: 1 / (1 + float(np.exp(-z))) for leaf, z in zip(routing.leaves, logits, strict=True)}
        return estimates, self.restorer._calibration.apply(quality), gates, beliefs

    def _refine(self, estimates: list[Encoded | None], gates: Gates) -> tuple[list[Array], float]:
        tensor = gate_tensor(self.restorer._routing, gates, self.restorer._rank)
        results: list[Array] = []
        qualities: list[float] = []
        tile_ms = self.controller.cost.refine.mean / self.count
        for i, current in enumerate(self.currents):
            self._check(i, tile_ms)
            original = self.originals[i] or self.session.encode(cut(self.rgb, self.plan, i))
            estimate = estimates[i] or self.session.encode(current)
            restored, quality = self.session.refine(current, original, estimate, tensor)
            if not np.isfinite(restored).all():
                raise BackendError(
                    f"{self.restorer.program.name} produced NaN on {self.restorer.backend}; use another program"
                )
            results.append(np.clip(restored, 0, 1))
            qualities.append(quality)
        return results, self.restorer._calibration.apply(float(np.mean(qualities)))

    def _record(self, quality: float, cost_ms: float, gates: Gates, beliefs: dict[str, float]) -> None:
        self.steps.append(Step(len(self.steps), quality, cost_ms, self._elapsed(), gates, beliefs))

    def _loop(self) -> None:
        controller = self.controller
        if not controller.may_encode():
            return
        mark = self._elapsed()

        def lap() -> float:
            nonlocal mark
            now = self._elapsed()
            cost, mark = now - mark, now
            return cost

        estimates, quality, gates, beliefs = self._encode()
        self.originals = estimates
        encode_ms = lap()
        self._record(quality, encode_ms, {}, beliefs)
        action = controller.start(quality, encode_ms)
        later_encode: float | None = None
        while action is Action.REFINE:
            if controller.iteration > 0:
                estimates, _, gates, beliefs = self._encode()
                later_encode = lap()
            self.currents, quality = self._refine(estimates, gates)
            # Composing belongs to the iteration: the picture is whole and usable after every one.
            self.pictures.append(blend(self.currents, self.plan))
            refine_ms = lap()
            self._record(quality, refine_ms + (later_encode or 0.0), gates, beliefs)
            action = controller.observe(quality, refine_ms, later_encode)

    def finish(self, picture: Picture) -> Restoration:
        controller = self.controller
        try:
            self._loop()
        except _OutOfTime:
            controller.reason = Stop.BUDGET
        self.restorer._cost = controller.cost.scaled(1 / self.count)
        best = controller.best_iteration
        assert controller.reason is not None
        return Restoration(
            picture=picture.with_rgb(self.pictures[best]),
            iteration=best,
            quality=controller.best_quality,
            reason=controller.reason,
            elapsed_ms=self._elapsed(),
            steps=tuple(self.steps),
            tiles=self.count,
            program=self.restorer.program.name,
            backend=self.restorer.backend,
            steps_rgb=tuple(self.pictures) if self.keep_steps else (),
        )
