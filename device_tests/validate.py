"""Accuracy: every program of a bundle against the full-precision student, on the protocol or on given pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from ..distill.recipe import Frozen
from ..runtime.bundle import Bundle, Manifest
from ..runtime.speed import describe_speed, not_faster
from .candidates import Result, runnable
from .contents import Pictures
from .gate import Gate
from .numerics import ALL, Failure, Numerics
from .pairs import find_pairs
from .parts import Part, Parts
from .protocol import load_protocol
from .samples import Sample
from .summary import SPEED, summarise, worst_pictures
from .workers import Load, Task, measuring

# Pairs done, pairs in all, what was measured last.
Progress = Callable[[int, int, str], None]
# Conditions a person wants to see first.
SHOWN = ("noise-25", "rain-heavy", "snow-heavy", "haze-heavy", "low-light-heavy", "rain+haze")
# Details on the page: how many, of pictures that lost how many dB at least.
DETAILS, DETAIL_DB = 8, 0.05


class Plan(Frozen):
    """What to measure, and how much may be lost."""

    data: Path
    pictures: int | None = None
    conditions: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    iterations: int = 4
    teacher: Path | None = None
    gate: Gate = Gate()
    keep_slow: bool = Field(
        default=False, description="let int8 pass that is not faster than float where both were timed"
    )
    jobs: int = Field(default=1, gt=0, description="processes; each loads every candidate")
    device: str | None = Field(default=None, description="programs run there too; one process")


class Validation(NamedTuple):
    """The figures, and pictures to look at."""

    numerics: Numerics
    pictures: Pictures


def measure(bundle: Bundle, plan: Plan, report: Path, progress: Progress) -> Validation:
    """Run every candidate on every pair for a fixed number of iterations, compare and judge.

    Finished conditions are kept below `report` until `write_report` has written there; a killed measurement goes on with
    the others. Raises InputError, BundleError, BackendError, DeviceError.
    """
    protocol = load_protocol()
    source = find_pairs(plan.data, plan.conditions, plan.pictures, protocol)
    programs = runnable(bundle, plan.programs)
    depends = {
        "bundle": bundle.manifest.model_dump(mode="json", exclude={"profiles", "provenance"}),
        "protocol": protocol.sha256,
        "programs": programs,
        "iterations": plan.iterations,
        "pictures": [path.name for path in source.files],
        "device": plan.device,
    }
    parts = Parts(report, depends, [*source.files, *([plan.teacher] if plan.teacher else [])])
    found = {pairs.condition.name: parts.read(pairs.condition.name) for pairs in source.sets}
    total = sum(len(pairs.clean) for pairs in source.sets)
    missing = [pairs for pairs in source.sets if found[pairs.condition.name] is None]
    done = total - sum(len(pairs.clean) for pairs in missing)
    if missing:
        load = Load(
            bundle=bundle.path,
            programs=tuple(programs),
            teacher=plan.teacher,
            iterations=plan.iterations,
            device=plan.device,
        )
        progress(done, total, "loading")
        tasks = [
            Task(pairs, index, index == 0 and (pairs.condition.name in SHOWN or bool(pairs.given)))
            for pairs in missing
            for index in range(len(pairs.clean))
        ]
        with measuring(load, 1 if plan.device else plan.jobs) as run:
            results = iter(run(tasks))
            for pairs in missing:
                name = pairs.condition.name
                pictures: list[Result] = []
                for result in islice(results, len(pairs.clean)):
                    pictures.append(result)
                    done += 1
                    progress(done, total, f"{name} {result.runs[0].picture}")
                found[name] = part = _part(pictures)
                parts.write(name, part)
    finished = [part for part in found.values() if part is not None]
    runs = [run for part in finished for run in part.runs]
    measured = summarise(runs, plan.gate, plan.iterations)
    asked = plan.programs or [program.name for program in bundle.manifest.programs]
    refused = () if plan.keep_slow else tuple(_slow(bundle.manifest, asked))
    numerics = Numerics(
        gate=measured.gate,
        iterations=measured.iterations,
        rows=measured.rows,
        decisions=measured.decisions,
        drifts=measured.drifts,
        failures=measured.failures + refused,
        bundle=bundle.path.resolve().name,
        student=bundle.manifest.student.size,
        protocol_sha256=protocol.sha256,
        picture_set=source.name,
        speed={name: describe_speed(bundle.manifest, name) for name in asked},
        worst=tuple(worst_pictures(runs)),
    )
    details = [sample for part in finished for sample in part.details if sample.drop_db >= DETAIL_DB]
    shown = Pictures(
        whole=tuple(sample for part in finished for sample in part.whole),
        details=tuple(sorted(details, key=lambda sample: -sample.drop_db)[:DETAILS]),
    )
    return Validation(numerics, shown)


def _part(results: Sequence[Result]) -> Part:
    """A condition's pictures together; of every program the detail of the picture that lost most."""
    details: dict[str, Sample] = {}
    for sample in (sample for result in results for sample in result.details):
        if sample.candidate not in details or sample.drop_db > details[sample.candidate].drop_db:
            details[sample.candidate] = sample
    return Part(
        runs=tuple(run for result in results for run in result.runs),
        whole=tuple(result.whole for result in results if result.whole is not None),
        details=tuple(details.values()),
    )


def _slow(manifest: Manifest, programs: Sequence[str]) -> Iterator[Failure]:
    """Programs that are quantised for nothing; those that no backend here runs are judged too, by their profiles."""
    for speed in not_faster(manifest):
        if speed.program in programs:
            yield Failure(
                metric=SPEED,
                condition=ALL,
                candidate=speed.program,
                device=speed.device,
                value=round(speed.ratio, 3),
                limit=1.0,
            )
