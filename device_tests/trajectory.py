"""What a candidate makes of a picture, iteration by iteration, without early stop, so that all are compared on equal steps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch

from ..distill.teachers.protocol import Teacher
from ..runtime.backends import Encoded, Session
from ..runtime.controller import UNSEEN, TileState
from ..runtime.errors import BackendError
from ..runtime.methods import REFINE
from ..runtime.restoration import Event
from ..runtime.restorer import Restorer
from ..runtime.routing import Gates, Prospect, Routing, believed, gate_tensor, prospect, refiner, route
from ..runtime.run import joined
from ..runtime.tiles import TilePlan, from_program, mirror, plan_tiles, to_program
from .job import Event as JobEvent
from .metrics import from_pixels, to_pixels
from .protocol import Array


class Qualities(NamedTuple):
    """What a program said of one tile."""

    # By encode, of what every iteration began with; of what a mirror image's is added to, by the refine before.
    assessed: tuple[float, ...]
    predicted: tuple[float, ...]  # by refine, of every iteration's result
    differences: tuple[float, ...]  # of every iteration's result, where it is a view's, from the mean that it joined
    prospect: Prospect


class Trajectory(NamedTuple):
    """Iterations 1 to n. A teacher has pictures alone."""

    pictures: tuple[Array, ...]  # float32 H×W×3, of every iteration
    plan: TilePlan | None = None
    qualities: tuple[Qualities, ...] = ()  # of every tile
    gates: tuple[Gates, ...] = ()  # of every iteration, every expert's; means over tiles


def run_restorer(restorer: Restorer, picture: Array, iterations: int) -> Trajectory:
    """A loaded program as a caller of the runtime gets it: 8 bits, tiles, calibrated qualities. Raises BackendError."""
    result = restorer.restore(
        to_pixels(picture), max_iterations=iterations, min_iterations=iterations, rollback=False, keep_steps=True
    )
    if result.notes or len(result.steps) != iterations + 1:
        raise BackendError(" ".join(result.notes) or f"{restorer.program.name} stopped early: {result.reason.value}")
    plan = plan_tiles(picture.shape[0], picture.shape[1], restorer.bundle.manifest.tile)
    qualities = said(result.trace, len(plan), iterations)
    return Trajectory(result.steps_rgb[1:], plan, qualities, tuple(s.gates for s in result.steps[1:]))


def said(trace: Iterable[Event | JobEvent], tiles: int, iterations: int) -> tuple[Qualities, ...]:
    """Every tile's qualities, from the calls of a restoration here or on a device."""
    assessed, predicted, differences = ([[0.0] * iterations for _ in range(tiles)] for _ in range(3))
    prospects = [UNSEEN] * tiles
    for event in trace:
        if event.ran == "mirror":
            assessed[event.tile][event.iteration] = predicted[event.tile][event.iteration - 1]
        elif event.quality is not None and event.ran == "refine":
            predicted[event.tile][event.iteration - 1] = event.quality
            differences[event.tile][event.iteration - 1] = event.difference
        elif event.quality is not None:
            assessed[event.tile][event.iteration] = event.quality
        if event.prospect is not None and event.iteration == 0:
            prospects[event.tile] = event.prospect
    return tuple(
        Qualities(tuple(a), tuple(p), tuple(d), promised)
        for a, p, d, promised in zip(assessed, predicted, differences, prospects, strict=True)
    )


def run_session(session: Session, routing: Routing, rank: int, picture: Array, iterations: int) -> Trajectory:
    """A program that is in no bundle yet, on a picture of exactly one tile; the runtime's loop without its controller."""
    plan = plan_tiles(picture.shape[0], picture.shape[1], picture.shape[0])
    pixels = to_pixels(picture)
    pictures: list[Array] = []
    assessed: list[float] = []
    predicted: list[float] = []
    differences: list[float] = []
    gates: list[Gates] = []
    degraded = to_program(pixels, plan.tile)
    original: Encoded | None = None
    tile = TileState(1.0)
    for iteration in range(iterations):
        tile.iteration = iteration
        current = to_program(pixels, plan.tile)
        view = tile.view
        source = mirror(degraded, view) if view else current
        estimate = session.encode(source)
        assessed.append(predicted[-1] if view else estimate.quality)
        gates.append(route(routing, estimate.granularity, estimate.logits))
        beliefs = believed(routing, estimate.logits)
        if original is None:
            original = estimate
            tile.prospect = prospect(routing, beliefs, gates[-1])
        opened = gate_tensor(routing, gates[-1], rank)
        method = refiner(routing, beliefs) if view == iteration else REFINE
        restored, quality = session.refine(source, estimate if view else original, estimate, opened, method)
        difference = 0.0
        if view:
            restored, quality, difference = joined(current, predicted[-1], view, mirror(restored, view), quality)
        pixels = from_program(restored, pixels)
        pictures.append(from_pixels(pixels))
        predicted.append(quality)
        differences.append(difference)
    qualities = Qualities(tuple(assessed), tuple(predicted), tuple(differences), tile.prospect)
    return Trajectory(tuple(pictures), plan, (qualities,), tuple(gates))


@torch.no_grad()
def run_teacher(teacher: Teacher, picture: Array, iterations: int) -> Trajectory:
    """A teacher's rounds."""
    degraded = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)[None]))
    rounds = teacher.restore(degraded, iterations)
    return Trajectory(tuple(step.picture[0].permute(1, 2, 0).numpy() for step in rounds))
