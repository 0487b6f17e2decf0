"""What a measurement has finished, kept beside its report until all of it is done, so that a broken one goes on."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from ..runtime.files import replace
from .records import Record

FOLDER = ".unfinished-profile"

R = TypeVar("R", bound=Record)


class Unfinished:
    """Records by key. `depends`: all that they depend on; what was made from other things is not found."""

    def __init__(self, folder: Path, depends: Any) -> None:
        self._root = folder / FOLDER
        self._folder = self._root / _digest(json.dumps(depends, sort_keys=True))
        self._lock = threading.Lock()

    def read(self, key: str, kind: type[R]) -> R | None:
        """A finished record, None where there is none that can be read."""
        path = self._folder / f"{_digest(key)}.json"
        try:
            return kind.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            return None

    def write(self, key: str, record: Record) -> None:
        """Keep a finished record. Raises InputError."""
        text = record.model_dump_json()
        with self._lock:  # files beside their destination are named after the process
            self._folder.mkdir(parents=True, exist_ok=True)
            replace(self._folder / f"{_digest(key)}.json", lambda beside: beside.write_text(text))

    def clear(self) -> None:
        """Forget all of it."""
        shutil.rmtree(self._root, ignore_errors=True)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]
