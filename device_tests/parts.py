"""What a validation has finished, condition by condition, kept beside the report so that a killed one goes on."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..distill.recipe import Frozen
from ..runtime.files import replace
from .numerics import FORMAT, Run
from .samples import Sample

FOLDER = ".unfinished"


class Part(Frozen):
    """Everything of one condition."""

    runs: tuple[Run, ...]
    whole: tuple[Sample, ...] = ()
    details: tuple[Sample, ...] = ()


class Parts:
    """Finished conditions of one validation, in `report`/.unfinished; another bundle or plan has another key."""

    def __init__(self, report: Path, depends: Any, files: Sequence[Path]) -> None:
        """`depends` and the content of `files` are all that the figures depend on."""
        digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
        content = json.dumps([FORMAT, version("burnish"), depends, digests], sort_keys=True)
        self._folder = report / FOLDER / hashlib.sha256(content.encode()).hexdigest()[:16]

    def read(self, condition: str) -> Part | None:
        """A finished condition, None where it is to be measured."""
        path = self._path(condition)
        try:
            return Part.model_validate_json(path.read_bytes()) if path.is_file() else None
        except ValidationError:
            return None

    def write(self, condition: str, part: Part) -> None:
        """Keep a finished condition. Raises InputError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        content = part.model_dump_json()
        replace(self._path(condition), lambda beside: beside.write_text(content))

    def _path(self, condition: str) -> Path:
        # A condition may be named after a folder of the user's.
        return self._folder / f"{hashlib.sha256(condition.encode()).hexdigest()[:16]}.json"


def clear(report: Path) -> None:
    """Forget what was unfinished: the report is written."""
    shutil.rmtree(report / FOLDER, ignore_errors=True)
