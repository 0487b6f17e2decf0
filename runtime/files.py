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


def replace_folder(path: Path, marker: str, save: Callable[[Path], object]) -> None:
    """Have `save` fill a folder beside `path`, then put it in its place. Raises InputError.

    A folder that is already there is replaced only where it holds the file `marker`, which says that it is of the same
    kind; it stays as it was until the new one is complete.
    """
    beside, retired = (path.with_name(f".{os.getpid()}.{mark}{path.name}") for mark in ("", "old."))
    try:
        beside.mkdir(parents=True)
        save(beside)
        if path.exists():
            if not (path / marker).is_file():
                raise InputError(f"{path} exists and holds no {marker}; give another destination")
            os.replace(path, retired)
        os.replace(beside, path)
    except OSError as error:
        raise InputError(f"cannot write {path} ({error}); expected a writable folder with room in it") from None
    finally:
        for folder in (beside, retired):
            shutil.rmtree(folder, ignore_errors=True)
