"""The base of everything that goes into files here, and reading it back."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from ..runtime.errors import InputError

M = TypeVar("M", bound=BaseModel)


class Record(BaseModel):
    """Immutable, unknown keys refused. Needs pydantic alone: it travels to devices."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def read_record(path: Path, kind: type[M], again: str) -> M:
    """A record from its file; `again`: what writes it. Raises InputError."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({str(error).splitlines()[0]}); run `{again}` again") from None
