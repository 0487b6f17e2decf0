"""What a restoration gives: updates while it runs, and its result with a trace of every step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .controller import Stop
from .pictures import Picture, to_array
from .routing import Gates, Prospect
from .tiles import Pixels, Region, TilePlan, blend


@dataclass(frozen=True)
class Event:
    """One call of the program. `ran`: look, encode, mirror, recall or refine; `iteration`: of the tile, 0 at first.

    `quality` is assessed by an encode, predicted by a refine (NaN: broken and thrown away), None where nothing was said.
    `prospect`: of an encode; `difference`: of a refine, that of a view from the mean that it joined, 0 of others.
    """

    ran: str
    tile: int
    iteration: int
    cost_ms: float
    elapsed_ms: float
    quality: float | None = None
    prospect: Prospect | None = None
    difference: float = 0.0


@dataclass(frozen=True)
class Step:
    """The whole picture after a round of iterations; iteration 0 is the picture as it came.

    `gates` and `degradations` are means over the tiles that the round refined, as it saw them before.
    """

    iteration: int
    quality: float
    cost_ms: float
    elapsed_ms: float
    gates: Gates
    degradations: dict[str, float]


@dataclass(frozen=True)
class Update:
    """The picture after one more refine. `region` is what may have changed, `done` the tiles that were refined or needed none.

    `iteration` is the tile's; `quality` is predicted, of the whole picture.
    """

    iteration: int
    tile: int
    improved: bool
    region: Region
    quality: float
    elapsed_ms: float
    done: int
    tiles: int
    picture: Picture
    plan: TilePlan
    kept: Sequence[Pixels]

    @cached_property
    def patch(self) -> Pixels:
        """The pixels of `region`: uint8 or uint16 h×w×3."""
        return blend(self.kept, self.plan, self.region)

    @property
    def pixels(self) -> NDArray[Any]:
        """The whole picture now, composed when asked for: uint8 or uint16 H×W×C, channels as they came in."""
        return to_array(self.picture.with_rgb(blend(self.kept, self.plan)))


@dataclass(frozen=True)
class Restoration:
    """The result, and how it came about.

    `iteration`: the highest that a tile kept. `quality`: predicted, of the picture in [0, 1]; 0 where nothing was assessed.
    `steps`: a row a round; `trace`: a row a call of the program; `steps_rgb`: the picture of every row of `steps`, float32 in
    [0, 1], when they were asked for.
    """

    picture: Picture
    iteration: int
    quality: float
    reason: Stop
    elapsed_ms: float
    steps: tuple[Step, ...]
    trace: tuple[Event, ...]
    tiles: int
    program: str
    backend: str
    steps_rgb: tuple[NDArray[np.float32], ...] = ()

    @property
    def pixels(self) -> NDArray[Any]:
        """uint8 (uint16 for 16-bit input) H×W×C, channels as they came in."""
        return to_array(self.picture)

    @property
    def notes(self) -> tuple[str, ...]:
        """What should be known of the picture that went in, and of the run."""
        broken = (
            (f"{self.program} gave a broken picture on {self.backend}; that step was rolled back, use another program",)
            if any(event.quality is not None and event.quality != event.quality for event in self.trace)
            else ()
        )
        return (*self.picture.notes, *broken)
