"""All teachers by name. A new one is one file with a `build` function, and one entry here."""

from __future__ import annotations

from importlib import import_module
from typing import Literal

import torch

from ...runtime.errors import InputError
from .protocol import Card, Teacher

Size = Literal["published", "tiny"]

# Name → module beside this one; its `build(name, size)` makes the teacher.
TEACHERS: dict[str, str] = {
    "promptir": "single_pass",
    "adair": "single_pass",
    "nafnet": "single_pass",
    "restormer": "single_pass",
    "sipl-promptir": "sipl",
    "sipl-adair": "sipl",
    "sipl-nafnet": "sipl",
    "sipl-restormer": "sipl",
    "sipl-promptir-s": "sipl",
    "uir-lora": "uir_lora",
    "unirestorer": "unirestorer",
    "rar": "rar",
}


def create(name: str, size: Size = "published") -> Teacher:
    """A teacher with fresh weights: its published configuration, or a tiny one for tests. Raises InputError."""
    check(name)
    return import_module(f"{__package__}.{TEACHERS[name]}").build(name, size)


def check(name: str) -> None:
    """Raises InputError when no teacher has this name."""
    if name not in TEACHERS:
        raise InputError(f"unknown teacher {name!r}; expected one of {', '.join(TEACHERS)}")


def card(name: str) -> Card:
    """Whose a teacher is; nothing is allocated."""
    with torch.device("meta"):
        return create(name, "tiny").card
