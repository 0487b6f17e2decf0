"""All teachers by name. A new one is one file with a `build` function, and one entry here."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Literal

from ...runtime.errors import InputError
from .protocol import Card, Teacher

Size = Literal["published", "tiny"]


@dataclass(frozen=True)
class Entry:
    """A module beside this one, whose `build(name, size)` makes the teacher, and the teacher's card."""

    module: str
    card: Card


def _single_pass(title: str, paper: str, licence: str, commercial_use: bool) -> Entry:
    card = Card(title=title, paper=paper, licence=licence, commercial_use=commercial_use, published_rounds=1)
    return Entry("single_pass", card)


def _sipl(backbone: str, licence: str, commercial_use: bool = False) -> Entry:
    paper = "Self-Improved Privilege Learning for All-in-One Image Restoration, 2025 (github.com/Aitical/SIPL)"
    return Entry("sipl", Card(title=f"SIPL on {backbone}", paper=paper, licence=licence, commercial_use=commercial_use))


TEACHERS: dict[str, Entry] = {
    "promptir": _single_pass(
        "PromptIR",
        "Potlapalli et al., PromptIR: Prompting for All-in-One Blind Image Restoration, NeurIPS 2023",
        "non-commercial",
        commercial_use=False,
    ),
    "adair": _single_pass(
        "AdaIR",
        "Cui et al., AdaIR: Adaptive All-in-One Image Restoration via Frequency Mining and Modulation, ICLR 2025",
        "not checked",
        commercial_use=False,
    ),
    "nafnet": _single_pass(
        "NAFNet", "Chen et al., Simple Baselines for Image Restoration, ECCV 2022", "MIT", commercial_use=True
    ),
    "restormer": _single_pass(
        "Restormer",
        "Zamir et al., Restormer: Efficient Transformer for High-Resolution Image Restoration, CVPR 2022",
        "not checked",
        commercial_use=False,
    ),
    "sipl-promptir": _sipl("PromptIR", "none published (SIPL); non-commercial (PromptIR)"),
    "sipl-adair": _sipl("AdaIR", "none published (SIPL)"),
    "sipl-nafnet": _sipl("NAFNet", "none published (SIPL)"),
    "sipl-restormer": _sipl("Restormer", "none published (SIPL)"),
    "sipl-promptir-s": _sipl(
        "a PromptIR at half resolution", "our code and weights: Apache-2.0, CC BY-SA 4.0", commercial_use=True
    ),
    "uir-lora": Entry(
        "uir_lora",
        Card(
            title="UIR-LoRA",
            paper="UIR-LoRA: Achieving Universal Image Restoration through Multiple Low-Rank Adaptation, 2024",
            licence="none published (UIR-LoRA); Stability AI Community License (sd-turbo)",
            commercial_use=False,
            published_rounds=1,
        ),
    ),
    "unirestorer": Entry(
        "unirestorer",
        Card(
            title="UniRestorer",
            paper="Lin et al., UniRestorer: Adaptively Estimating Image Degradation at Proper Granularity, 2024",
            licence="none published",
            commercial_use=False,
            published_rounds=1,
        ),
    ),
    "rar": Entry(
        "rar",
        Card(
            title="RAR: Restore, Assess, Repeat",
            paper="Restore, Assess, Repeat (github.com/SamsungLabs/RAR)",
            licence="not checked (RAR); Stability AI Community License (SD3.5-medium)",
            commercial_use=False,
        ),
    ),
}


def create(name: str, size: Size = "published") -> Teacher:
    """A teacher with fresh weights: its published configuration, or a tiny one for tests. Raises InputError."""
    entry = find(name)
    teacher: Teacher = import_module(f"{__package__}.{entry.module}").build(name, size)
    teacher.name, teacher.card = name, entry.card
    return teacher


def find(name: str) -> Entry:
    """The entry of a teacher. Raises InputError when none has this name."""
    if name not in TEACHERS:
        raise InputError(f"unknown teacher {name!r}; expected one of {', '.join(TEACHERS)}")
    return TEACHERS[name]
