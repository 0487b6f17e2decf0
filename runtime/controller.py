"""The controller: a pure state machine that decides after every step whether to refine again, and why to stop.

No clock, no model, no I/O: it is told what a step cost and what the assessment was. Milliseconds and qualities are plain
floats, so that three languages agree; tests/conformance/controller.json holds the cases.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from pydantic import BaseModel, ConfigDict, Field

from .cost import CostModel


class Stop(str, Enum):
    """Why a restoration ended."""

    QUALITY = "quality"
    REGRESSION = "regression"
    PLATEAU = "plateau"
    ITERATIONS = "iterations"
    BUDGET = "budget"


class Policy(BaseModel):
    """What the caller wants: a deadline, a quality, a number of iterations; None means no such limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    budget_ms: float | None = Field(default=None, ge=0, description="milliseconds from the call to the result")
    min_quality: float | None = Field(default=None, ge=0, le=1, description="stop when predicted quality reaches this")
    max_iterations: int = Field(default=4, ge=0)
    min_iterations: int = Field(default=0, ge=0, description="iterations done whatever the budget says")
    min_gain: float = Field(default=0.0, description="a smaller gain in predicted quality counts as a plateau")
    rollback: bool = Field(default=True, description="stop at a regression and return the best picture, not the last")


class Action(str, Enum):
    """What to do next: refine the current picture, or stop."""

    REFINE = "refine"
    STOP = "stop"


@dataclass
class Controller:
    """One restoration's decisions. `cost` predicts the next step; `elapsed_ms` counts from the call."""

    policy: Policy
    cost: CostModel
    elapsed_ms: float = 0.0
    iteration: int = 0
    best_iteration: int = 0
    best_quality: float = 0.0
    reason: Stop | None = None
    _qualities: list[float] = field(default_factory=list)

    def may_encode(self) -> bool:
        """Whether the first encode of the picture fits the budget together with the refine it is for."""
        if self.policy.max_iterations == 0:
            self.reason = Stop.ITERATIONS
        elif self._over_budget(self.cost.encode.upper + self.cost.refine.upper):
            self.reason = Stop.BUDGET
        return self.reason is None

    def start(self, quality: float, encode_ms: float) -> Action:
        """The original was encoded: its assessed quality makes it the first candidate."""
        self.elapsed_ms += encode_ms
        self.cost = self.cost.observe(encode_ms=encode_ms)
        self._qualities.append(quality)
        self.best_quality = quality
        if self._enough(quality):
            return self._stop(Stop.QUALITY)
        if self._over_budget(self.cost.refine.upper):
            return self._stop(Stop.BUDGET)
        return Action.REFINE

    def observe(self, quality: float, refine_ms: float, encode_ms: float | None = None) -> Action:
        """An iteration ended with `quality`; `encode_ms` is what encoding its input cost, None in the first iteration."""
        self.elapsed_ms += refine_ms + (encode_ms or 0.0)
        self.cost = self.cost.observe(encode_ms=encode_ms, refine_ms=refine_ms)
        self.iteration += 1
        self._qualities.append(quality)
        best_before = self.best_quality
        if not self.policy.rollback or quality >= best_before:
            self.best_iteration, self.best_quality = self.iteration, quality
        if self._enough(quality):
            return self._stop(Stop.QUALITY)
        if self.iteration >= self.policy.min_iterations:
            if self.policy.rollback and quality < best_before:
                return self._stop(Stop.REGRESSION)
            if quality - best_before < self.policy.min_gain:
                return self._stop(Stop.PLATEAU)
        if self.iteration >= self.policy.max_iterations:
            return self._stop(Stop.ITERATIONS)
        if self._over_budget(self.cost.encode.upper + self.cost.refine.upper):
            return self._stop(Stop.BUDGET)
        return Action.REFINE

    def _enough(self, quality: float) -> bool:
        wanted = self.policy.min_quality
        return wanted is not None and self.iteration >= self.policy.min_iterations and quality >= wanted

    def _over_budget(self, next_ms: float) -> bool:
        budget = self.policy.budget_ms
        return (
            budget is not None and self.iteration >= self.policy.min_iterations and self.elapsed_ms + next_ms > budget
        )

    def _stop(self, reason: Stop) -> Action:
        self.reason = reason
        return Action.STOP
