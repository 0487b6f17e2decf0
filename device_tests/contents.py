"""What a folder of reports holds: numerics.json and pictures.json of validate, perf.json of profile; any may be missing."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ..distill.recipe import Frozen
from ..runtime.bundle import MANIFEST, Bundle, Manifest
from ..runtime.errors import InputError
from .numerics import Numerics
from .perf import PERF, Perf
from .records import M, read_record
from .samples import Sample

NUMERICS, PICTURES = "numerics.json", "pictures.json"


class Pictures(Frozen):
    """Pictures to look at: whole ones, and details of what lost most."""

    whole: tuple[Sample, ...] = ()
    details: tuple[Sample, ...] = ()


class Contents(NamedTuple):
    """Everything that is known of a bundle; None where nothing was measured."""

    name: str
    manifest: Manifest | None = None
    numerics: Numerics | None = None
    pictures: Pictures = Pictures()
    perf: Perf | None = None


def read_contents(folder: Path, bundle: Bundle | None = None) -> Contents:
    """What `folder` holds of one bundle. Raises InputError for files that cannot be read."""
    numerics = _read(folder / NUMERICS, Numerics, "burnish validate")
    perf = _read(folder / PERF, Perf, "burnish profile")
    named = [part.bundle for part in (numerics, perf) if part is not None]
    name = bundle.path.resolve().name if bundle is not None else named[0] if named else folder.name
    # A folder outside the bundle may hold what is left of another one.
    numerics = numerics if numerics is not None and numerics.bundle == name else None
    pictures = _read(folder / PICTURES, Pictures, "burnish validate") if numerics is not None else None
    return Contents(
        name=name,
        manifest=None if bundle is None else bundle.manifest,
        numerics=numerics,
        pictures=pictures or Pictures(),
        perf=perf if perf is not None and perf.bundle == name else None,
    )


def known_of(place: Path, reports: Path) -> Contents:
    """What `reports` hold of the bundle at `place`, which may be missing. Raises InputError where they hold nothing."""
    bundle = Bundle.open(place) if (place / MANIFEST).is_file() else None
    contents = read_contents(reports, bundle)
    if contents.numerics is None and contents.perf is None:
        raise InputError(
            f"{reports} holds no {NUMERICS} and no {PERF} of {contents.name}; "
            "run `burnish validate` or `burnish profile` first"
        )
    return contents


def _read(path: Path, kind: type[M], again: str) -> M | None:
    return read_record(path, kind, again) if path.is_file() else None
