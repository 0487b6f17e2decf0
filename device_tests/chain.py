"""The chain of losses: input → teacher → student → every program → the same program on devices."""

from __future__ import annotations

from typing import NamedTuple

from .numerics import BASELINE, INPUT, TEACHER, Key, Measurement

GROUPS = ("single", "double", "triple", "pairs")


class Cell(NamedTuple):
    """PSNR in dB after the last iteration, and its change from the link before; None where nothing was measured."""

    psnr: float | None
    change: float | None
    failed: bool


class Line(NamedTuple):
    """A condition, or the mean of a group of them."""

    name: str
    mean: bool
    cells: tuple[Cell, ...]


def links(measured: Measurement) -> list[Key]:
    """Candidates in the order of the chain."""
    order = {INPUT: 0, TEACHER: 1, BASELINE: 2}
    names = [name for name, _ in measured.candidates]
    return sorted(measured.candidates, key=lambda key: (order.get(key[0], 3), names.index(key[0]), key[1] or ""))


def link_before(measured: Measurement, key: Key) -> Key | None:
    """What a link is compared with: the student with the teacher, programs with the student, a device with this machine."""
    name, device = key
    before = (TEACHER, None) if name == BASELINE else (name, None) if device is not None else (BASELINE, None)
    if name in (INPUT, TEACHER) or before not in measured.candidates:
        return None if name in (INPUT, TEACHER, BASELINE) else (BASELINE, None)
    return before


def chain(measured: Measurement) -> list[Line]:
    """Every condition, then the mean of every group."""
    failed = {(f.condition, f.candidate, f.device) for f in measured.failures}
    keys = links(measured)

    def psnr(condition: str, key: Key) -> float | None:
        row = measured.row(condition, key, measured.iterations)
        return None if row is None else row.truth.psnr

    def line(name: str, mean: bool, values: dict[Key, float | None]) -> Line:
        cells: list[Cell] = []
        for key in keys:
            before = link_before(measured, key)
            own, other = values[key], None if before is None else values[before]
            change = None if own is None or other is None else own - other
            cells.append(Cell(own, change, (name, *key) in failed))
        return Line(name, mean, tuple(cells))

    lines = [line(name, False, {key: psnr(name, key) for key in keys}) for name in measured.conditions]
    for group in GROUPS:
        values = {key: measured.mean(key, measured.iterations, group) for key in keys}
        if values[BASELINE, None] is not None:
            lines.append(line(f"mean of {group}", True, values))
    return lines


def label(key: Key) -> str:
    """A candidate, and its device where that is not this machine."""
    return key[0] if key[1] is None else f"{key[0]} on {key[1]}"
