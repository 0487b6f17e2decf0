"""Recipes: frozen, versioned configuration of training runs."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, Field


class Frozen(BaseModel):
    """Base of all configuration: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def check_known(leaves: Iterable[str], known: Iterable[str]) -> None:
    """Raises ValueError, which pydantic tells as its own, for a leaf that is not known."""
    expected = tuple(known)
    for leaf in leaves:
        if leaf not in expected:
            raise ValueError(f"unknown leaf {leaf!r}; expected some of {', '.join(expected)}")


class Schedule(Frozen):
    """How long and how fast to train."""

    steps: int = Field(default=1_000_000, ge=0, description="optimisation steps at most; 0 trains nothing")
    minutes: float | None = Field(default=None, gt=0, description="minutes of training at most, over all sessions")
    batch: int = Field(default=8, gt=0, description="patches a step and device")
    patch: int = Field(default=128, ge=32, multiple_of=16, description="side of a patch in pixels")
    learning_rate: float = Field(default=8e-4, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    muon: bool = Field(default=True, description="Muon for matrices; AdamW for all when false")
    warmup: int = Field(default=200, ge=1, description="steps of linear warm-up")
    clip: float = Field(default=0.5, gt=0, description="largest gradient norm")
    ema: float = Field(default=0.999, ge=0, lt=1, description="decay of the averaged weights")
    seed: int = 0
    workers: int = Field(default=1, ge=0, description="data loader processes")
    devices: int = Field(default=1, ge=1)
    log_seconds: float = 10.0
    save_seconds: float = 120.0
