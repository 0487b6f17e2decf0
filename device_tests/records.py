"""The base of everything that goes into files here."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Immutable, unknown keys refused. Needs pydantic alone: it travels to devices."""

    model_config = ConfigDict(frozen=True, extra="forbid")
