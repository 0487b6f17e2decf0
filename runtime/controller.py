"""The controller: a pure state machine that says what to do next with which tile, and why to stop.

No clock, no model, no I/O: it is told what a step cost, what the assessment was and how much time has passed. A picture
of one tile goes through restore, assess, repeat. Of many tiles each gets its first iteration, after a survey where one is
asked for; then time goes to the tile with the largest expected gain. The second iteration restores the mirror image of the
picture as it came, the third and fourth the two that are upside down, where that is allowed, and each joins the mean of those
before (self-ensemble; Lim et al., "Enhanced Deep Residual Networks", CVPR workshops 2017); later ones go on from there.
Milliseconds and qualities are plain floats, so that languages agree: tests/conformance/controller.json and tiles.json hold the
cases, docs/conformance.md the rules.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from .cost import DEVIATIONS, CostModel
from .quality import mse_to_quality, quality_to_mse
from .routing import Prospect

# A predicted loss is believed from here on, 2 dB: less is within the heads' scatter (docs/decisions.md).
TOLERANCE = 0.05
# What is worth another iteration, 0.04 dB.
LEAST_GAIN = 0.001
# Of a tile that was not encoded yet.
UNSEEN = Prospect(belief=0.0, variance=0.0, upright=False)
# Mirror images that a tile is restored in: left and right exchanged, upside down, both.
VIEWS = 3


class Stop(str, Enum):
    """Why a restoration ended."""

    QUALITY = "quality"
    REGRESSION = "regression"
    PLATEAU = "plateau"
    ITERATIONS = "iterations"
    BUDGET = "budget"
    BROKEN = "broken"
    CANCELLED = "cancelled"


class Policy(BaseModel):
    """What the caller wants: a deadline, a quality, a number of iterations; None means no such limit."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    budget_ms: float | None = Field(default=None, ge=0, description="milliseconds from the call to the result")
    min_quality: float | None = Field(default=None, ge=0, le=1, description="stop when predicted quality reaches this")
    max_iterations: int = Field(default=4, ge=0, description="of every tile; wins over min_iterations")
    min_iterations: int = Field(default=0, ge=0, description="of every tile, whatever the budget and the quality say")
    min_gain: float = Field(
        default=LEAST_GAIN, description="an iteration that is expected to gain no more is not begun"
    )
    rollback: bool = Field(default=True, description="stop at a predicted loss and keep the picture before it")


class Kind(str, Enum):
    """What to do next; every kind but STOP is one call of the program."""

    LOOK = "look"  # encode the whole picture as it is now, made small
    ENCODE = "encode"  # encode a tile's current picture
    MIRROR = "mirror"  # encode a mirror image of a tile's original: as many as the tile had iterations, see VIEWS
    RECALL = "recall"  # encode a tile's original again: its features were given up for room
    REFINE = "refine"
    STOP = "stop"


# Whether a tile had its first iterations; before that its part in the survey, then its expected gain below zero; its
# iterations, its index.
Rank = tuple[bool, float, int, int]


class Action(NamedTuple):
    """The next step and its tile, of LOOK the one that is due after it; STOP has tile 0."""

    kind: Kind
    tile: int = 0


@dataclass
class TileState:
    """What is known of one tile. `area`: its share of the picture; `gain`: by how much its next iteration is expected to lower
    the picture's error; `quality`: of the kept picture as refine predicted it; `assessed`: what the next refine is
    compared with, of the same picture as encode saw it, if it did; of a view the best that was said of those it joins.
    """

    area: float
    iteration: int = 0
    best_iteration: int = 0
    quality: float | None = None
    assessed: float = 0.0
    prospect: Prospect = UNSEEN
    gain: float = math.inf
    original: bool = False
    estimate: bool = False
    done: Stop | None = None

    @property
    def views(self) -> int:
        """Mirror images that it is restored in."""
        return 1 if self.prospect.upright else VIEWS

    @property
    def view(self) -> int:
        """The mirror image that its next iteration restores; 0 where that goes on from the last result."""
        return self.iteration if self.iteration <= self.views else 0

    @property
    def looks(self) -> int:
        """Looks at the whole picture that its next iteration goes by; all of its views go by the first one's."""
        return max(1, self.iteration - self.views + 1)


class Controller:
    """One restoration's decisions.

    `areas`: every tile's share of the picture, summing to 1. `looks`: the whole picture is looked at before each round of
    iterations. `keep`: features of how many pictures may be kept. `caution`: deviations above the mean that a step is
    predicted to take; a runtime that can leave a late step needs less of it than one that has to wait.
    """

    def __init__(
        self,
        policy: Policy,
        cost: CostModel,
        areas: Sequence[float] = (1.0,),
        *,
        looks: bool = False,
        keep: int = 1_000_000,
        caution: float = DEVIATIONS,
    ) -> None:
        self.policy, self.cost, self.looks, self.keep, self.caution = policy, cost, looks, keep, caution
        self.tiles = [TileState(area) for area in areas]
        self.reason: Stop | None = None
        self.rounds_looked_at = 0
        self._last = Stop.ITERATIONS
        self._error = self._known = 0.0
        self._held: set[int] = set()
        self._surveyed: set[int] = set()
        # Tiles whose features are no longer wanted, all or some; for the runtime to take note of and clear.
        self.released: list[int] = []
        # Tiles that are not done, and a heap of the places they have or had in the order.
        self._open: dict[int, Rank] = {}
        self._order: list[Rank] = []
        if policy.max_iterations > 0:
            for index in range(len(self.tiles)):
                self._place(index)

    def choose(self, elapsed_ms: float) -> Action:
        """The next step that is predicted to end before the deadline, `elapsed_ms` after the call; STOP sets `reason`."""
        if self.reason is None:
            if len(self.tiles) > 1 and self._good_enough():
                self.reason = Stop.QUALITY
            elif not self._open:
                self.reason = self._last
            elif (index := self._next(elapsed_ms)) is None:
                self.reason = Stop.BUDGET
            else:
                return self._step(index)
        return Action(Kind.STOP)

    def looked(self, ms: float, survey: bool = False) -> None:
        """The whole picture was looked at. `survey`: tiles are to be encoded before the first is refined, all or, where their
        features cannot be kept, as many as can, evenly spread; there is none of one tile, nor where one iteration of every
        tile does not fit.
        """
        self.cost = self.cost.encoded(ms)
        self.rounds_looked_at += 1
        count = len(self.tiles)
        kept = min(count, self.keep)
        if survey and kept > 1 and self._has_time_for_all():
            self._surveyed = {index * count // kept for index in range(kept)}
            for index in self._surveyed & self._open.keys():
                self._place(index)

    def encoded(self, index: int, quality: float, prospect: Prospect, ms: float) -> None:
        """A tile's current picture was encoded: its assessed quality and, which counts the first time alone, its prospect."""
        self.cost = self.cost.encoded(ms)
        tile = self.tiles[index]
        quality = 0.0 if math.isnan(quality) else quality
        tile.estimate = True
        if tile.iteration == tile.best_iteration:
            tile.assessed = quality
        first = tile.iteration == 0 and tile.quality is None
        if first:
            tile.prospect, tile.gain = prospect, tile.area * quality_to_mse(quality) * prospect.belief**2
            self._keep(tile, quality)
        tile.original = tile.original or tile.iteration == 0
        self._place(index)
        if first and self._enough(tile, quality):
            self._finish(index, Stop.QUALITY)
        elif first and self._settled(tile, quality):
            self._finish(index, Stop.PLATEAU)
        self._make_room(index)

    def mirrored(self, index: int, ms: float) -> None:
        """A mirror image of a tile's original was encoded, which says nothing of the kept picture."""
        self.cost = self.cost.encoded(ms)
        tile = self.tiles[index]
        tile.estimate, tile.assessed = True, max(tile.assessed, tile.quality or 0.0)
        self._make_room(index)

    def recalled(self, index: int, ms: float) -> None:
        """A tile's original was encoded again."""
        self.cost = self.cost.encoded(ms)
        self.tiles[index].original = True
        self._make_room(index)

    def refined(self, index: int, quality: float, ms: float, difference: float) -> None:
        """An iteration of a tile ended with a predicted quality; NaN says that the result was broken and thrown away.

        `difference`: of a view, the mean squared difference of its restoration from the mean that it joined; 0 of others.
        """
        self.cost = self.cost.refined(ms)
        policy, tile = self.policy, self.tiles[index]
        tile.iteration += 1
        tile.estimate = False
        self.released.append(index)
        if math.isnan(quality):
            self._finish(index, Stop.BROKEN)
            return
        kept = self.keeps(index, quality)
        if kept:
            self._keep(tile, quality)
        tile.gain = tile.area * self._expected(tile, quality, difference)
        self._place(index)
        forced = tile.iteration < policy.min_iterations
        if kept and self._enough(tile, quality):
            self._finish(index, Stop.QUALITY)
        elif not kept and not forced:
            self._finish(index, Stop.REGRESSION)
        elif self._settled(tile, quality):
            self._finish(index, Stop.PLATEAU)
        elif tile.iteration >= policy.max_iterations:
            self._finish(index, Stop.ITERATIONS)
        self._make_room(index)

    def keeps(self, index: int, quality: float) -> bool:
        """Whether the picture shall show what a refine gave, by its predicted quality; no when that is NaN.

        It is compared with what encode, not the refine before, said of the kept picture: the two heads saw the same picture.
        A mean with a mirror image's is compared with the best of the refines before, whose error is a part of the prediction.
        """
        kept = not self.policy.rollback or quality - self.tiles[index].assessed >= -TOLERANCE
        return kept and not math.isnan(quality)

    def cancel(self) -> None:
        """The caller wants no more; the best so far stands. Where nothing was left to do, that is the reason still."""
        self.reason = self.reason or (Stop.CANCELLED if self._open else self._last)

    def late(self) -> None:
        """A step passed the deadline and was left; the best so far stands."""
        self.reason = self.reason or Stop.BUDGET

    @property
    def surveys(self) -> bool:
        """Whether tiles are encoded, or were, before the first is refined."""
        return bool(self._surveyed)

    @property
    def quality(self) -> float:
        """Of the picture as kept: that of the mean squared error of its tiles, as far as they were assessed; 0 before."""
        if len(self.tiles) == 1:
            return self.tiles[0].quality or 0.0
        return mse_to_quality(self._error / self._known) if self._known else 0.0

    @property
    def best_iteration(self) -> int:
        """The highest iteration that any tile keeps."""
        return max(tile.best_iteration for tile in self.tiles)

    def predicted_ms(self, index: int) -> float:
        """Upper estimate of what is still needed to end a tile's next iteration."""
        tile = self.tiles[index]
        encodes = self._look_is_due(tile) + (not tile.estimate) + self._original_is_missing(tile)
        encode, refine = self._predicted_costs()
        return encodes * encode + refine

    @staticmethod
    def _expected(tile: TileState, quality: float, difference: float) -> float:
        """By how much a tile's next iteration is expected to lower its error.

        Of the mean squared error of one of n views, v differs from view to view, so that their mean has v / n of it, and loses
        v / n (n + 1) by one more. The last view and the mean of the n − 1 before differ by v n / (n − 1); before there are
        two, v is a share of the error, by degradation. Going on after the views gains nothing (docs/decisions.md).
        """
        count = tile.iteration
        if tile.view == 0:
            return 0.0
        if count == 1:
            return tile.prospect.variance * quality_to_mse(quality) / 2
        return difference * (count - 1) / (count * count * (count + 1))

    def _settled(self, tile: TileState, quality: float) -> bool:
        """Whether a tile of this quality has no iteration to come that is worth it, or forced."""
        worth = quality_to_mse(quality) - quality_to_mse(quality + self.policy.min_gain)
        return tile.iteration >= self.policy.min_iterations and tile.gain <= tile.area * worth

    def _keep(self, tile: TileState, quality: float) -> None:
        """The tile as it is now is what the picture shows."""
        if tile.quality is None:
            self._known += tile.area
        else:
            self._error -= tile.area * quality_to_mse(tile.quality)
        self._error += tile.area * quality_to_mse(quality)
        tile.best_iteration, tile.quality = tile.iteration, quality

    def _place(self, index: int) -> None:
        """What is smallest goes first: early iterations in rounds, of the first round what is to be surveyed, then what was
        assessed, by expected gain; then all by expected gain, fewest iterations, index.
        """
        tile = self.tiles[index]
        later = tile.iteration >= max(1, self.policy.min_iterations)
        if later:
            urgency = -tile.gain
        elif tile.quality is None:
            urgency = -2.0 if index in self._surveyed else 0.0
        else:
            urgency = -1.0 - tile.gain if tile.iteration == 0 else 0.0
        self._open[index] = rank = (later, urgency, tile.iteration, index)
        heapq.heappush(self._order, rank)

    def _next(self, elapsed_ms: float) -> int | None:
        """The first tile in the order whose iteration fits; None where none does."""
        while self._open.get(self._order[0][-1]) != self._order[0]:
            heapq.heappop(self._order)
        first = self._order[0][-1]
        if self._fits(first, elapsed_ms):
            return first
        return next((rank[-1] for rank in sorted(self._open.values()) if self._fits(rank[-1], elapsed_ms)), None)

    def _fits(self, index: int, elapsed_ms: float) -> bool:
        budget = self.policy.budget_ms
        forced = self.tiles[index].iteration < self.policy.min_iterations
        return budget is None or forced or elapsed_ms + self.predicted_ms(index) <= budget

    def _predicted_costs(self) -> tuple[float, float]:
        """Upper estimates of an encode and of a refine, in milliseconds."""
        return self.cost.encode.predict(self.caution), self.cost.refine.predict(self.caution)

    def _has_time_for_all(self) -> bool:
        """Whether one iteration of every tile is forced, or predicted to fit the budget."""
        budget, count = self.policy.budget_ms, len(self.tiles)
        encode, refine = self._predicted_costs()
        return budget is None or self.policy.min_iterations > 0 or encode + count * (encode + refine) <= budget

    def _step(self, index: int) -> Action:
        tile = self.tiles[index]
        if self._look_is_due(tile):
            return Action(Kind.LOOK, index)
        if not tile.estimate:
            return Action(Kind.MIRROR if tile.view else Kind.ENCODE, index)
        if self._original_is_missing(tile):
            return Action(Kind.RECALL, index)
        return Action(Kind.REFINE, index)

    @staticmethod
    def _original_is_missing(tile: TileState) -> bool:
        """Whether the next iteration wants features that were given up; that of a mirror image reads none of the original."""
        return not tile.original and tile.iteration > tile.views

    def _look_is_due(self, tile: TileState) -> bool:
        return self.looks and self.rounds_looked_at < tile.looks

    def _good_enough(self) -> bool:
        """Whether the whole picture has the wanted quality, and every tile its least iterations."""
        wanted, least = self.policy.min_quality, self.policy.min_iterations
        return (
            wanted is not None
            and self.quality >= wanted
            and all(t.quality is not None and (t.done or t.iteration >= least) for t in self.tiles)
        )

    def _enough(self, tile: TileState, quality: float) -> bool:
        wanted = self.policy.min_quality
        return wanted is not None and tile.iteration >= self.policy.min_iterations and quality >= wanted

    def _finish(self, index: int, reason: Stop) -> None:
        tile = self.tiles[index]
        tile.done = self._last = reason
        tile.original = tile.estimate = False
        self._open.pop(index, None)
        self._held.discard(index)
        self.released.append(index)

    def _make_room(self, working: int) -> None:
        """Give up features of the tiles with the least to gain; an estimate goes before the original."""
        if self.tiles[working].original or self.tiles[working].estimate:
            self._held.add(working)
        if 2 * len(self._held) <= self.keep:
            return
        while sum(self._weight(i) for i in self._held) > self.keep and len(self._held) > 1:
            index = min(self._held - {working}, key=lambda i: (self.tiles[i].gain, -i))
            tile = self.tiles[index]
            if tile.estimate and tile.iteration > 0:
                tile.estimate = False
            else:
                tile.original = tile.estimate = False
            if not tile.original and not tile.estimate:
                self._held.discard(index)
            self.released.append(index)

    def _weight(self, index: int) -> int:
        # Before its first iteration a tile's estimate is its original.
        tile = self.tiles[index]
        return tile.original + (tile.estimate and tile.iteration > 0)
