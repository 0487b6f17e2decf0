"""The protocol every figure of this project uses: conditions, seeds, picture sets and the input PSNR of each.

benchmarks/protocol.json is fixed; later work may add to it, not change it. Its hash is stated beside every figure.
"""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ..distill.degradations import degrade
from ..distill.recipe import Frozen
from ..runtime.errors import InputError
from ..runtime.pictures import read

Array = NDArray[np.float32]


class Condition(Frozen):
    """One way to degrade every picture of a set; no severities at all is the clean condition."""

    name: str
    group: str = Field(description="clean, single, double or triple")
    severities: dict[str, float]


class PictureSet(Frozen):
    """A set of clean pictures: SHA-256 of every file by name, and the mean input PSNR of every condition in dB."""

    files: dict[str, str]
    input_psnr: dict[str, float]


class Protocol(Frozen):
    """Conditions and picture sets; `sha256` covers everything else."""

    version: int
    conditions: tuple[Condition, ...]
    sets: dict[str, PictureSet]
    sha256: str

    def digest(self) -> str:
        """SHA-256 of the canonical JSON of all but the hash."""
        content = self.model_dump(mode="json", exclude={"sha256"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def set_of(self, photos: list[Path]) -> str | None:
        """The name of the set these files belong to, None when they are the user's own."""
        for name, pictures in self.sets.items():
            if all(pictures.files.get(p.name) == hashlib.sha256(p.read_bytes()).hexdigest() for p in photos):
                return name
        return None


def load_protocol() -> Protocol:
    """The protocol that ships with burnish. Raises InputError when the file was changed."""
    protocol = Protocol.model_validate_json(files("burnish.benchmarks").joinpath("protocol.json").read_bytes())
    if protocol.digest() != protocol.sha256:
        raise InputError("benchmarks/protocol.json differs from its hash; it must not be changed")
    return protocol


def degraded(condition: Condition, name: str, clean: Array) -> Array:
    """The degraded version of a picture under a condition; the seed comes from the file's and the condition's names."""
    return degrade(clean, condition.severities, crc32(f"{name}/{condition.name}".encode()))


def read_clean(path: Path) -> Array:
    """A clean picture as float32 H×W×3 in [0, 1]."""
    return read(path).rgb
