"""What is measured on: pictures degraded by the protocol, or pairs of the user's own, condition by condition."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ..distill.data import list_pictures
from ..runtime.errors import InputError
from .protocol import Array, Condition, Protocol, degraded, read_clean

DEGRADED, CLEAN = "degraded", "clean"


class Pair(NamedTuple):
    """A degraded picture and the truth, float32 H×W×3 in [0, 1]."""

    name: str
    degraded: Array
    clean: Array


class PairSet(NamedTuple):
    """Pairs under one condition: clean files, and degraded ones where they are given and not made by the protocol."""

    condition: Condition
    clean: tuple[Path, ...]
    given: tuple[Path, ...] = ()

    def read(self, index: int) -> Pair:
        """Read pair `index`, or read its clean picture and degrade it. Raises InputError."""
        path = self.clean[index]
        clean = read_clean(path)
        if not self.given:
            return Pair(path.name, degraded(self.condition, path.name, clean), clean)
        pair = Pair(self.given[index].name, read_clean(self.given[index]), clean)
        if pair.degraded.shape != clean.shape:
            sizes = " and ".join(f"{p.shape[1]}×{p.shape[0]}" for p in (pair.degraded, clean))
            raise InputError(f"{self.given[index]} and {path} have {sizes} pixels; expected equal sizes")
        return pair


class Source(NamedTuple):
    """Everything to measure on. `files`: all files it is made from, so that a change of one can be noticed."""

    name: str
    sets: tuple[PairSet, ...]
    files: tuple[Path, ...]


def find_pairs(data: Path, conditions: tuple[str, ...], pictures: int | None, protocol: Protocol) -> Source:
    """The first `pictures` of `data` under each of the named conditions (all without any). Raises InputError.

    `data` holds clean photographs, which the protocol degrades; or pairs, `degraded/NAME` and `clean/NAME`; or such a
    folder of pairs for each condition, `CONDITION/degraded/NAME` and `CONDITION/clean/NAME`.
    """
    if not data.is_dir():
        raise InputError(f"{data} is not a folder; expected clean photographs, or pairs in degraded/ and clean/")
    folders = {"pairs": data} if _holds_pairs(data) else {p.name: p for p in sorted(data.iterdir()) if _holds_pairs(p)}
    if folders:
        return _given(data, folders, conditions, pictures)
    known = {condition.name: condition for condition in protocol.conditions}
    photos = list_pictures(data)[:pictures]
    chosen = _select(known, conditions, ", ".join(known))
    name = protocol.set_of(photos) or f"{data.name} ({len(photos)} pictures of the user's)"
    return Source(name, tuple(PairSet(condition, tuple(photos)) for condition in chosen), tuple(photos))


def _select(known: dict[str, Condition], wanted: tuple[str, ...], expected: str) -> list[Condition]:
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise InputError(f"unknown condition {unknown[0]!r}; expected some of {expected}")
    return [condition for name, condition in known.items() if not wanted or name in wanted]


def _holds_pairs(folder: Path) -> bool:
    """Whether a folder is one of pairs. Raises InputError when half of it is missing."""
    there = [(folder / name).is_dir() for name in (DEGRADED, CLEAN)]
    if any(there) and not all(there):
        missing = folder / (CLEAN if there[0] else DEGRADED)
        raise InputError(f"{missing} is missing; expected pairs of equal names in {DEGRADED}/ and {CLEAN}/")
    return all(there)


def _given(data: Path, folders: dict[str, Path], conditions: tuple[str, ...], pictures: int | None) -> Source:
    known = {name: Condition(name=name, group="pairs", severities={}) for name in folders}
    chosen = _select(known, conditions, f"the folders of {data}: {', '.join(folders)}")
    sets: list[PairSet] = []
    for condition in chosen:
        given, clean = zip(*_match(folders[condition.name])[:pictures], strict=True)
        sets.append(PairSet(condition, clean, given))
    return Source(data.name, tuple(sets), tuple(path for pairs in sets for path in (*pairs.given, *pairs.clean)))


def _match(folder: Path) -> list[tuple[Path, Path]]:
    """Degraded and clean files of equal names; suffixes may differ."""
    clean = _by_name(folder / CLEAN)
    pairs: list[tuple[Path, Path]] = []
    for name, path in _by_name(folder / DEGRADED).items():
        if name not in clean:
            raise InputError(
                f"{path} has no namesake in {folder / CLEAN}; expected a clean picture for every degraded one"
            )
        pairs.append((path, clean[name]))
    return pairs


def _by_name(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in list_pictures(folder):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise InputError(f"{found[name]} and {path} have one name; expected each picture once")
        found[name] = path
    return found
