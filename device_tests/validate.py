"""Accuracy: every program of a bundle against the full-precision student, on the protocol or on given pairs."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchmetrics.functional.image import structural_similarity_index_measure

from ..distill.data import list_pictures
from ..distill.metrics import psnr
from ..distill.recipe import Frozen
from ..distill.teachers.protocol import Teacher
from ..distill.weights import load_student
from ..runtime import backends
from ..runtime.bundle import Bundle
from ..runtime.errors import BackendError, BundleError, InputError
from ..runtime.restorer import Restorer
from .eager import EagerSession
from .numerics import BASELINE, TEACHER, Failure, Numerics, Row, Sample
from .protocol import Array, Condition, Protocol, degraded, load_protocol, read_clean

Progress = Callable[[int, int, str], None]
# Conditions a person wants to see first.
SHOWN = ("noise-25", "rain-heavy", "snow-heavy", "haze-heavy", "low-light-heavy", "rain+haze")


class Plan(Frozen):
    """What to measure."""

    data: Path
    pictures: int | None = None
    conditions: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    iterations: int = 4
    max_drop_db: float = 0.3


class Pair(NamedTuple):
    """A degraded picture and the truth."""

    condition: Condition
    name: str
    degraded: Array
    clean: Array


def measure(bundle: Bundle, plan: Plan, teacher: Teacher | None, progress: Progress) -> Numerics:
    """Run every candidate on every pair for a fixed number of iterations and compare. Raises InputError, BundleError."""
    protocol = load_protocol()
    count, set_name, pairs = _pairs(plan, protocol)
    candidates = _candidates(bundle, plan)
    names = (*candidates, TEACHER) if teacher is not None else tuple(candidates)
    scores: dict[tuple[str, str, int], list[tuple[float, float]]] = {}
    groups: dict[str, str] = {}
    samples: list[Sample] = []
    for done, pair in enumerate(pairs):
        progress(done, count, f"{pair.condition.name} {pair.name}")
        groups[pair.condition.name] = pair.condition.group
        for name, restorer in candidates.items():
            steps = _trajectory(restorer, pair.degraded, plan.iterations)
            for iteration, step in enumerate(steps):
                scores.setdefault((pair.condition.name, name, iteration), []).append(_score(step, pair.clean))
            if name == next(reversed(candidates)):
                _collect(samples, pair, steps[-1])
        if teacher is not None:
            for iteration, step in enumerate(teacher_trajectory(teacher, pair.degraded, plan.iterations)):
                scores.setdefault((pair.condition.name, TEACHER, iteration), []).append(_score(step, pair.clean))
    progress(count, count, "done")
    rows = tuple(_row(key, values, groups[key[0]], scores) for key, values in scores.items())
    return Numerics(
        bundle=str(bundle.path),
        student=bundle.manifest.student.size,
        protocol_sha256=protocol.sha256,
        picture_set=set_name,
        candidates=names,
        iterations=plan.iterations,
        max_drop_db=plan.max_drop_db,
        rows=rows,
        samples=tuple(samples),
        failures=tuple(_failures(rows, plan.max_drop_db)),
    )


def _candidates(bundle: Bundle, plan: Plan) -> dict[str, Restorer]:
    """The full-precision student and every program that a backend here runs."""
    first = bundle.manifest.programs[0] if bundle.manifest.programs else None
    if first is None:
        raise BundleError(f"{bundle.path} has no programs; export some first")
    session = EagerSession(load_student(bundle.file(bundle.manifest.weights)))
    candidates = {BASELINE: Restorer(bundle, first, "eager", session)}
    for name in plan.programs:
        bundle.program(name)
    for program in bundle.manifest.programs:
        if plan.programs and program.name not in plan.programs:
            continue
        try:
            backend, chosen = backends.choose(bundle, "auto", program.name)
            candidates[program.name] = Restorer(bundle, chosen, backend, backends.load(bundle, backend, chosen))
        except (BackendError, BundleError):
            # Asked for by name, it must run; otherwise what no backend here executes is left to other machines.
            if plan.programs:
                raise
    return candidates


def _pairs(plan: Plan, protocol: Protocol) -> tuple[int, str, Iterator[Pair]]:
    """Number of pairs, the name of the picture set, and the pairs."""
    unknown = [c for c in plan.conditions if c not in {row.name for row in protocol.conditions}]
    if unknown:
        raise InputError(f"unknown condition {unknown[0]!r}; expected some of the names in benchmarks/protocol.json")
    if (plan.data / "degraded").is_dir() and (plan.data / "clean").is_dir():
        return _given_pairs(plan)
    photos = list_pictures(plan.data)[: plan.pictures]
    conditions = [c for c in protocol.conditions if not plan.conditions or c.name in plan.conditions]
    set_name = protocol.set_of(photos) or f"{plan.data.name} ({len(photos)} pictures of the user's)"

    def generate() -> Iterator[Pair]:
        for path in photos:
            clean = read_clean(path)
            for condition in conditions:
                yield Pair(condition, path.name, degraded(condition, path.name, clean), clean)

    return len(photos) * len(conditions), set_name, generate()


def _given_pairs(plan: Plan) -> tuple[int, str, Iterator[Pair]]:
    condition = Condition(name="pairs", group="pairs", severities={})
    given = {p.stem: p for p in list_pictures(plan.data / "degraded")}
    clean = {p.stem: p for p in list_pictures(plan.data / "clean")}
    names = sorted(given.keys() & clean.keys())[: plan.pictures]
    if not names:
        raise InputError(f"{plan.data}: no file in degraded/ has a namesake in clean/; expected pairs of equal names")

    def generate() -> Iterator[Pair]:
        for name in names:
            pair = Pair(condition, name, read_clean(given[name]), read_clean(clean[name]))
            if pair.degraded.shape != pair.clean.shape:
                raise InputError(f"{given[name]} and {clean[name]} differ in size; expected equal sizes")
            yield pair

    return len(names), plan.data.name, generate()


def _trajectory(restorer: Restorer, picture: Array, iterations: int) -> tuple[Array, ...]:
    """The input and every iteration's picture, without early stop."""
    result = restorer.restore(
        np.round(picture * 255).astype(np.uint8),
        max_iterations=iterations,
        min_iterations=iterations,
        rollback=False,
        keep_steps=True,
    )
    return result.steps_rgb


@torch.no_grad()
def teacher_trajectory(teacher: Teacher, picture: Array, iterations: int) -> list[Array]:
    """The input and the teacher's picture of every round."""
    degraded = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)[None]))
    rounds = teacher.restore(degraded, iterations)
    return [picture, *(step.picture[0].permute(1, 2, 0).numpy() for step in rounds)]


def _score(restored: Array, clean: Array) -> tuple[float, float]:
    """PSNR in dB and SSIM of the 8-bit picture a user would get."""
    shown = torch.from_numpy(np.round(np.clip(restored, 0, 1) * 255) / 255).permute(2, 0, 1)[None].float()
    truth = torch.from_numpy(clean).permute(2, 0, 1)[None].float()
    similarity = structural_similarity_index_measure(shown, truth, data_range=1.0)
    assert isinstance(similarity, torch.Tensor)
    return float(psnr(shown, truth)), float(similarity)


def _row(
    key: tuple[str, str, int],
    values: list[tuple[float, float]],
    group: str,
    scores: dict[tuple[str, str, int], list[tuple[float, float]]],
) -> Row:
    condition, candidate, iteration = key
    baseline = scores[(condition, BASELINE, iteration)]
    drops = [b[0] - v[0] for b, v in zip(baseline, values, strict=True)]
    return Row(
        condition=condition,
        group=group,
        candidate=candidate,
        iteration=iteration,
        psnr=round(float(np.mean([v[0] for v in values])), 4),
        ssim=round(float(np.mean([v[1] for v in values])), 5),
        worst_drop_db=round(max(drops), 4),
        pictures=len(values),
    )


def _failures(rows: tuple[Row, ...], allowed: float) -> Iterator[Failure]:
    baseline = {(r.condition, r.iteration): r.psnr for r in rows if r.candidate == BASELINE}
    for row in rows:
        # On a clean picture both are compared with the original, where "lost" dB above 40 are invisible.
        reference = min(baseline[(row.condition, row.iteration)], 40.0 if row.group == "clean" else np.inf)
        drop = reference - row.psnr
        if row.candidate not in (BASELINE, TEACHER) and row.iteration > 0 and drop > allowed:
            yield Failure(
                condition=row.condition, candidate=row.candidate, iteration=row.iteration, drop_db=round(drop, 4)
            )


def _collect(samples: list[Sample], pair: Pair, restored: Array) -> None:
    """Keep the first picture of every condition worth showing."""
    wanted = pair.condition.name in SHOWN or pair.condition.group == "pairs"
    if not wanted or any(s.condition == pair.condition.name for s in samples):
        return
    before, after = _score(pair.degraded, pair.clean)[0], _score(restored, pair.clean)[0]
    samples.append(
        Sample(
            condition=pair.condition.name,
            name=pair.name,
            degraded=_data_uri(pair.degraded),
            restored=_data_uri(restored),
            psnr=(round(before, 2), round(after, 2)),
        )
    )


def _data_uri(picture: NDArray[np.float32]) -> str:
    stream = io.BytesIO()
    pixels = np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    Image.fromarray(pixels).save(stream, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
