"""quantize.json: how the graphs beside it were quantised."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from ..distill.recipe import Frozen
from ..runtime.errors import InputError
from .config import QuantizeConfig

MARKER = "quantize.json"


class Record(Frozen):
    """How it was done, for which tile, and what stays in float beside the configured layers, by target."""

    config: QuantizeConfig
    tile: int
    kept_in_float: dict[str, tuple[str, ...]]

    @property
    def command(self) -> str:
        """What a bundle's provenance says of it."""
        minutes = self.config.training_minutes
        return "burnish quantize" if minutes is None else f"burnish quantize --train-minutes {minutes:g}"


def read_record(folder: Path) -> Record:
    """How the graphs of a folder were quantised. Raises InputError for a folder of another version, or none of ours."""
    path = folder / MARKER
    if not path.is_file():
        raise InputError(f"{folder} holds no {MARKER}; expected a folder that `burnish quantize` wrote")
    try:
        return Record.model_validate_json(path.read_bytes())
    except ValidationError:
        raise InputError(f"{path} is damaged or of another burnish version; run `burnish quantize` again") from None
