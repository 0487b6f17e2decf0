"""One restoration: carries out what the controller says, tile by tile, and keeps the picture whole after each step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from .backends import Encoded, Session
from .bundle import MANIFEST, Calibration
from .controller import Action, Controller, Kind, Policy, Stop
from .cost import CostModel
from .errors import BackendError, BundleError, BurnishError
from .methods import REFINE
from .pictures import Picture
from .quality import quality_of_mean
from .restoration import Event, Restoration, Update
from .rounds import Rounds
from .routing import (
    Gates,
    Routing,
    TokenSource,
    agreed_logits,
    believed,
    gate_tensor,
    prospect,
    refiner,
    route,
    token_source,
)
from .tiles import Array, Pixels, TilePlan, blend, from_program, make_small, mirror, plan_tiles, to_program
from .worker import Late, Worker

T = TypeVar("T")

# A result this much darker than what it came from is broken, unless that was nearly black itself. Dense haze before a dark
# scene may rightly lose 95 % of its light.
DARKER, NEARLY_BLACK = 0.02, 4 / 255
# A late step is left, so that the odds can be taken: at 3 deviations a core that another process keeps half busy left 16 % of
# the budget unused in the median, at 1 nothing (simulated, see docs/runtime.md).
CAUTION = 1.0
# What is kept free before the deadline for waking up and handing over.
RESERVE_MS = 0.5


@dataclass
class Engine:
    """A loaded program and what is known of it. `keep`: of how many pictures features may be kept."""

    session: Session
    program: str
    backend: str
    tile: int
    rank: int
    routing: Routing
    calibration: Calibration
    keep: int
    cost: CostModel = field(default_factory=CostModel)
    worker: Worker = field(default_factory=Worker)

    def call(self, work: Callable[[], T], timeout_s: float | None, took: Callable[[float], None]) -> T:
        """The result of a call of the program, in its turn; see `Worker.call`. Raises Late, BackendError."""
        try:
            return self.worker.call(work, timeout_s, took)
        except (Late, BurnishError):
            raise
        except Exception as error:  # backends raise their libraries' own types
            detail = (str(error).splitlines() or [type(error).__name__])[0]
            raise BackendError(f"{self.program} failed on {self.backend} ({detail}); try another backend") from error

    def encode(self, planes: Array) -> Encoded:
        """What the program says of a picture. Raises BundleError where it speaks of another tree than the manifest."""
        encoded = self.session.encode(planes)
        told, known = len(encoded.logits), len(self.routing.leaves)
        if told != known:
            raise BundleError(f"{self.program} names {told} degradations, {MANIFEST} {known}; export the bundle again")
        return encoded

    # Both are called by the worker's thread alone, so that no observation is lost to another; a refusal, told by whoever was
    # refused, may cost one, and the next makes up for it.
    def encode_took(self, ms: float) -> None:
        """An encode ended, whoever asked for it and whether he still waits."""
        self.cost = self.cost.encoded(ms)

    def refine_took(self, ms: float) -> None:
        """A refine ended."""
        self.cost = self.cost.refined(ms)

    def refused(self, budget_ms: float) -> None:
        """A restoration ended by its budget before its first step."""
        self.cost = self.cost.refused(budget_ms)


class Seen(NamedTuple):
    """What an encode said of a tile, for the refine that follows, and the method that this is to be."""

    gates: Gates
    degradations: dict[str, float]
    method: str


class Run:
    """The state of one call of `restore`."""

    def __init__(
        self,
        engine: Engine,
        picture: Picture,
        policy: Policy,
        fixed: Gates | None,
        keep_steps: bool,
        cancelled: Callable[[], bool],
        began: float,
    ) -> None:
        self._engine, self._picture, self._fixed = engine, picture, fixed
        self._keep_steps, self._cancelled, self._began = keep_steps, cancelled, began
        height, width = picture.pixels.shape[:2]
        self._plan: TilePlan = plan_tiles(height, width, engine.tile)
        count = len(self._plan)
        self._controller = Controller(
            policy, engine.cost, self._plan.areas, looks=count > 1, keep=engine.keep, caution=CAUTION
        )
        self._originals: dict[int, Encoded] = {}
        self._estimates: dict[int, Encoded] = {}
        # Degradation logits of every round's look: a tile goes by the look of its own round, since a later one sees a picture
        # whose other tiles are further.
        self._looks: list[tuple[float, ...]] = []
        # What a tile does not see of the picture it is of: tokens of the first look or, once a tile is refined, the mean of
        # those that were encoded before.
        self._tokens: Array | None = None
        self._survey: list[tuple[float, Array]] = []
        views = [picture.pixels[self._plan.region(i).slices] for i in range(count)]
        self._sources: list[Pixels] = views
        # What the next iteration starts from, with its predicted quality, and what the picture shows; they differ after a
        # forced regression.
        self._current: list[Pixels] = list(views)
        self._predicted: list[float] = [0.0] * count
        self._kept: list[Pixels] = views
        self._canvas: Pixels = picture.pixels
        self._planes: tuple[int, Array] | None = None
        self._seen: dict[int, Seen] = {}
        self._trace: list[Event] = []
        self._ended_ms: float | None = None
        self._tried = False  # any step
        self._rounds = Rounds(self._plan.areas)
        self._steps_rgb: list[NDArray[np.float32]] = [picture.rgb] if keep_steps else []

    def updates(self) -> Iterator[Update]:
        """Carry out steps until the controller stops; after every refine the picture as it is then."""
        controller = self._controller
        while True:
            if self._cancelled():
                controller.cancel()
            action = controller.choose(self._elapsed())
            if action.kind is Kind.STOP:
                break
            try:
                update = self._carry_out(action)
            except Late:
                controller.late()
                continue
            if update is not None:
                yield update
        budget_ms = controller.policy.budget_ms
        if budget_ms is not None and controller.reason is Stop.BUDGET and not self._tried:
            self._engine.refused(budget_ms)
        self._ended_ms = self._elapsed()

    def result(self) -> Restoration:
        """The restoration as far as it got, the caller's to keep: later steps do not write into it."""
        controller, engine = self._controller, self._engine
        steps = self._rounds.rows(controller.quality)
        shown = [*self._steps_rgb] if steps else []
        if self._keep_steps and self._rounds.open:
            shown.append(self._picture.with_rgb(self._canvas).rgb)
        written = self._ended_ms is not None and self._canvas is not self._picture.pixels
        return Restoration(
            picture=self._picture.with_rgb(self._canvas if written else self._canvas.copy()),
            iteration=controller.best_iteration,
            quality=controller.quality,
            reason=controller.reason or Stop.CANCELLED,
            elapsed_ms=self._elapsed() if self._ended_ms is None else self._ended_ms,
            steps=tuple(steps),
            trace=tuple(self._trace),
            tiles=len(self._plan),
            program=engine.program,
            backend=engine.backend,
            steps_rgb=tuple(shown),
        )

    def _elapsed(self) -> float:
        return (time.perf_counter() - self._began) * 1e3

    def _call(self, index: int, work: Callable[[], Any], took: Callable[[float], None]) -> tuple[Any, float]:
        """The result of a call of the program and its milliseconds, waiting for other threads included. Raises Late."""
        self._tried = True
        policy, before = self._controller.policy, self._elapsed()
        timeout = None
        if policy.budget_ms is not None and self._controller.tiles[index].iteration >= policy.min_iterations:
            timeout = max(0.0, policy.budget_ms - before - RESERVE_MS) / 1e3
        return self._engine.call(work, timeout, took), self._elapsed() - before

    def _carry_out(self, action: Action) -> Update | None:
        if action.kind is Kind.LOOK:
            return self._take_a_look(action.tile)
        if action.kind is Kind.REFINE:
            return self._refine(action.tile)
        if action.kind is Kind.RECALL:
            return self._recall(action.tile)
        return self._encode(action.tile)

    def _source(self, index: int) -> Callable[[], Array]:
        """Makes what a tile's next iteration starts from, as the program takes it."""
        tile, original, current = self._engine.tile, self._sources[index], self._current[index]
        state = self._controller.tiles[index]
        if view := state.view:
            return lambda: mirror(to_program(original, tile), view)
        return lambda: to_program(current, tile)

    def _take_a_look(self, index: int) -> None:
        engine, canvas = self._engine, self._canvas
        look, ms = self._call(
            index, lambda: engine.encode(to_program(make_small(canvas, engine.tile), engine.tile)), engine.encode_took
        )
        source = TokenSource.OWN if self._looks else token_source(engine.routing, look.logits)
        if source is TokenSource.LOOK:
            self._tokens = look.tokens
        self._looks.append(look.logits)
        self._controller.looked(ms, survey=source is TokenSource.MEAN)
        self._record(Event("look", 0, self._controller.rounds_looked_at - 1, ms, self._elapsed()))

    def _recall(self, index: int) -> None:
        engine, original = self._engine, self._sources[index]
        self._originals[index], ms = self._call(
            index, lambda: engine.encode(to_program(original, engine.tile)), engine.encode_took
        )
        self._controller.recalled(index, ms)
        self._record(Event("recall", index, self._controller.tiles[index].iteration, ms, self._elapsed()))
        self._forget()

    def _encode(self, index: int) -> None:
        engine, source = self._engine, self._source(index)

        def work() -> tuple[Encoded, Array]:
            planes = source()
            return engine.encode(planes), planes

        (encoded, planes), ms = self._call(index, work, engine.encode_took)
        state = self._controller.tiles[index]
        if self._controller.surveys and self._tokens is None and state.quality is None:
            self._survey.append((state.area, encoded.tokens))
        self._estimates[index], self._planes = encoded, (index, planes)
        self._assess(index, encoded, ms)
        self._forget()

    def _assess(self, index: int, encoded: Encoded, ms: float) -> None:
        routing, controller = self._engine.routing, self._controller
        tile = controller.tiles[index]
        iteration = tile.iteration
        logits = agreed_logits(routing, self._looks[: tile.looks], encoded.logits)
        gates = route(routing, encoded.granularity, logits) if self._fixed is None else self._fixed
        beliefs = believed(routing, logits)
        # What a restoration left is not what a specialist learnt from, so that it takes views of the picture as it came alone.
        found = beliefs if self._fixed is None else self._fixed
        method = refiner(routing, found) if tile.view == iteration else REFINE
        self._seen[index] = Seen(gates, beliefs, method)
        if tile.view:
            controller.mirrored(index, ms)
            self._record(Event("mirror", index, iteration, ms, self._elapsed()))
            return
        quality = self._calibrated(encoded.quality)
        promised = prospect(routing, beliefs, gates)
        controller.encoded(index, quality, promised, ms)
        self._record(Event("encode", index, iteration, ms, self._elapsed(), quality, promised))
        if iteration == 0:
            self._originals[index] = encoded
            self._rounds.started(index, quality, beliefs)
            self._ended(index)

    def _refine(self, index: int) -> Update:
        engine, controller = self._engine, self._controller
        session, tile, state = engine.session, engine.tile, controller.tiles[index]
        current, predicted, seen = self._current[index], self._predicted[index], self._seen[index]
        view, estimate = state.view, self._estimates[index]
        original = estimate if view else self._originals[index]
        if self._survey and self._tokens is None:
            self._tokens = mean_tokens(self._survey)
        if self._tokens is not None:
            estimate = estimate._replace(tokens=self._tokens)
        planes = self._planes[1] if self._planes is not None and self._planes[0] == index else None
        source = self._source(index)
        gates = gate_tensor(engine.routing, seen.gates, engine.rank)

        def work() -> tuple[Pixels, float, float]:
            start = source() if planes is None else planes
            restored, quality = session.refine(start, original, estimate, gates, seen.method)
            quality = self._calibrated(quality)
            if math.isnan(quality) or _broken(restored, start):
                return current, math.nan, 0.0
            difference = 0.0
            if view:
                mean = to_program(current, tile), predicted, view
                restored, quality, difference = joined(*mean, mirror(restored, view), quality)
            return from_program(restored, current), quality, difference

        before = self._elapsed()
        (pixels, quality, difference), _ = self._call(index, work, engine.refine_took)
        # Told before what it costs is known whole: showing the result belongs to the step.
        keeps = controller.keeps(index, quality)
        if not math.isnan(quality):
            self._current[index], self._predicted[index] = pixels, quality
        if keeps:
            self._show(index, pixels)
        ms = self._elapsed() - before
        controller.refined(index, quality, ms, difference)
        event = Event("refine", index, state.iteration, ms, self._elapsed(), quality, difference=difference)
        self._record(event)
        self._rounds.refined(index, seen.gates, seen.degradations)
        self._ended(index)
        self._forget()
        return self._update(index, keeps)

    def _show(self, index: int, pixels: Pixels) -> None:
        """Put a tile's result into the picture, blended with its neighbours'."""
        self._kept = [*self._kept]  # updates handed out keep the list they have
        self._kept[index] = pixels
        if len(self._plan) == 1:
            self._canvas = pixels
            return
        if self._canvas is self._picture.pixels:
            self._canvas = self._canvas.copy()
        region = self._plan.region(index)
        self._canvas[region.slices] = blend(self._kept, self._plan, region)

    def _update(self, index: int, improved: bool) -> Update:
        controller = self._controller
        return Update(
            iteration=controller.tiles[index].iteration,
            tile=index,
            improved=improved,
            region=self._plan.region(index),
            quality=controller.quality,
            elapsed_ms=self._elapsed(),
            done=self._rounds.begun,
            tiles=len(self._plan),
            picture=self._picture,
            plan=self._plan,
            kept=self._kept,
        )

    def _record(self, event: Event) -> None:
        self._trace.append(event)
        self._rounds.spent(event.cost_ms, event.elapsed_ms, event.ran in ("look", "encode") and event.iteration == 0)

    def _ended(self, index: int) -> None:
        """A tile may have been the last of its round."""
        tile = self._controller.tiles[index]
        if (
            self._rounds.reached(index, tile.iteration, tile.done is not None, self._controller.quality)
            and self._keep_steps
        ):
            self._steps_rgb.append(self._picture.with_rgb(self._canvas).rgb)

    def _calibrated(self, quality: float) -> float:
        return quality if math.isnan(quality) else self._engine.calibration.apply(quality)

    def _forget(self) -> None:
        """Let go of the features that the controller gave up."""
        controller = self._controller
        for index in controller.released:
            if not controller.tiles[index].original:
                self._originals.pop(index, None)
            if not controller.tiles[index].estimate:
                self._estimates.pop(index, None)
        controller.released.clear()


def mean_tokens(survey: Sequence[tuple[float, Array]]) -> Array:
    """Mean of tiles' tokens by their shares of the picture, summed in order, so that every language gets the same bytes."""
    total, shares = np.zeros(survey[0][1].shape), 0.0
    for area, tokens in survey:
        total += area * tokens.astype(np.float64)
        shares += area
    return np.asarray(total / shares, np.float32)


def joined(one: Array, quality: float, count: int, other: Array, others: float) -> tuple[Array, float, float]:
    """The mean of `count` restorations, of predicted `quality`, joined by an `other`; the quality to expect of it; the mean
    squared difference of what was joined.
    """
    other = np.clip(other, 0, 1)
    difference = float(np.square(one - other, dtype=np.float64).mean())
    mean = (np.float32(count) * one + other) / np.float32(count + 1)
    return mean, quality_of_mean(quality, count, others, difference), difference


def _broken(restored: Array, source: Array) -> bool:
    """NaN, infinite, or black where the source was not."""
    level = float(restored.mean())
    before = float(source.mean())
    return not math.isfinite(level) or (before > NEARLY_BLACK and level < DARKER * before)
