"""Writing so that nothing half-written is ever seen: beside the destination, then renamed."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from .errors import InputError


def replace(path: Path, save: Callable[[Path], object]) -> None:
    """Have `save` write a file beside `path`, then rename it to `path`. Raises InputError."""
    beside = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        save(beside)
        beside.chmod(0o644)  # safetensors makes files that their owner alone can read
        os.replace(beside, path)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"cannot write {path} ({error}); expected a writable folder and a fitting suffix") from None
    finally:
        beside.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed calls of `replace` left half-written in `folder`; nothing else may be writing there."""
    for path in folder.glob(".*"):
        if re.match(r"\.\d+\.", path.name) and path.is_file():
            path.unlink(missing_ok=True)


def check_folder(path: Path) -> None:
    """Raises InputError where there is no folder at `path` to write into, and none can be made."""
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise InputError(f"cannot write into {path}: {there} is no writable folder; give another destination")


def check_replaceable(path: Path, marker: str) -> None:
    """Raises InputError where `replace_folder` would not put a folder at `path`: to be asked before long work."""
    if not path.name:
        raise InputError(f"{path} names no folder; give the destination a name")
    check_folder(path.parent)
    empty = path.is_dir() and not any(path.iterdir())
    if path.exists() and not empty and not (path / marker).is_file():
        raise InputError(f"{path} exists and holds no {marker}; give another destination")


def replace_folder(path: Path, marker: str, save: Callable[[Path], object]) -> None:
    """Have `save` fill a folder beside `path`, then put it in its place. Raises InputError.

    A folder that is already there is replaced only where it is empty or holds the file `marker`, which says that it is of
    the same kind; it stays as it was until the new one is complete.
    """
    check_replaceable(path, marker)
    beside, retired = (path.with_name(f".{os.getpid()}.{mark}{path.name}") for mark in ("", "old."))
    try:
        beside.mkdir(parents=True)
        save(beside)
        check_replaceable(path, marker)  # again: `save` may have taken hours
        if path.exists():
            os.replace(path, retired)
        os.replace(beside, path)
    except OSError as error:
        raise InputError(f"cannot write {path} ({error}); expected a writable folder with room in it") from None
    finally:
        for folder in (beside, retired):
            shutil.rmtree(folder, ignore_errors=True)
