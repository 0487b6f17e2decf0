"""All teachers by name. A new one is one file with a `build` function, and one entry here."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

from ...runtime.errors import InputError
from .protocol import Card, Figures, Size, Teacher


@dataclass(frozen=True)
class Entry:
    """A module beside this one, whose `build(size, *arguments)` makes the teacher, and the teacher's card."""

    module: str
    card: Card
    arguments: tuple[str, ...] = ()


def _single_pass(
    kind: str, title: str, paper: str, figures: Figures, licence: str = "not checked", commercial_use: bool = False
) -> Entry:
    card = Card(
        title=title, paper=paper, licence=licence, commercial_use=commercial_use, published_rounds=1, figures=figures
    )
    return Entry("single_pass", card, (kind,))


def _sipl(
    title: str, licence: str, *arguments: str, commercial_use: bool = False, figures: Figures | None = None
) -> Entry:
    card = Card(
        title=f"SIPL on {title}",
        paper="Self-Improved Privilege Learning for All-in-One Image Restoration, 2025 (github.com/Aitical/SIPL)",
        licence=licence,
        commercial_use=commercial_use,
        figures=figures or Figures(),
    )
    return Entry("sipl", card, arguments)


TEACHERS: dict[str, Entry] = {
    "promptir": _single_pass(
        "promptir",
        "PromptIR",
        "Potlapalli et al., PromptIR: Prompting for All-in-One Blind Image Restoration, NeurIPS 2023",
        Figures(parameters=35.59, macs={"plain": 172.7}),
        licence="non-commercial",
    ),
    "adair": _single_pass(
        "adair",
        "AdaIR",
        "Cui et al., AdaIR: Adaptive All-in-One Image Restoration via Frequency Mining and Modulation, ICLR 2025",
        Figures(parameters=28.78, macs={"plain": 161.7}),
    ),
    "nafnet": _single_pass(
        "nafnet",
        "NAFNet",
        "Chen et al., Simple Baselines for Image Restoration, ECCV 2022",
        Figures(parameters=17.11, macs={"plain": 15.9}),
        licence="MIT",
        commercial_use=True,
    ),
    "restormer": _single_pass(
        "restormer",
        "Restormer",
        "Zamir et al., Restormer: Efficient Transformer for High-Resolution Image Restoration, CVPR 2022",
        Figures(
            parameters=26.13, macs={"plain": 141.0}, note="the paper leaves the products of attention out of its 141 G"
        ),
    ),
    "sipl-promptir": _sipl(
        "PromptIR",
        "none published (SIPL); non-commercial (PromptIR)",
        "promptir",
        figures=Figures(parameters=40.03, macs={"plain": 191.4, "encoder features": 50.6, "privileged": 208.0}),
    ),
    "sipl-adair": _sipl("AdaIR", "none published (SIPL)", "adair"),
    "sipl-nafnet": _sipl("NAFNet", "none published (SIPL)", "nafnet"),
    "sipl-restormer": _sipl("Restormer", "none published (SIPL)", "restormer"),
    "sipl-promptir-s": _sipl(
        "a PromptIR at half resolution",
        "our code and weights: Apache-2.0, CC BY-SA 4.0",
        "promptir",
        "reduced",
        commercial_use=True,
    ),
    "sipl-student": Entry(
        "student",
        Card(
            title="SIPL on a student of size base",
            paper="Self-Improved Privilege Learning for All-in-One Image Restoration, 2025, on our own network",
            licence="our code and weights: Apache-2.0, CC BY-SA 4.0",
            commercial_use=True,
        ),
    ),
    "uir-lora": Entry(
        "uir_lora",
        Card(
            title="UIR-LoRA",
            paper="UIR-LoRA: Achieving Universal Image Restoration through Multiple Low-Rank Adaptation, 2024",
            licence="none published (UIR-LoRA); Stability AI Community License (sd-turbo)",
            commercial_use=False,
            published_rounds=1,
            base="sd-turbo",
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
            figures=Figures(
                parameters=627.0,
                note="the paper's 627 M are of its tree of 1, 4 and 8 experts; this is the released one of 1, 7 and 22",
            ),
        ),
    ),
    "rar": Entry(
        "rar",
        Card(
            title="RAR: Restore, Assess, Repeat",
            paper="Restore, Assess, Repeat (github.com/SamsungLabs/RAR)",
            licence="not checked (RAR); Stability AI Community License (SD3.5-medium)",
            commercial_use=False,
            base="stable-diffusion-3.5-medium",
        ),
    ),
}


def create(name: str, size: Size = "published") -> Teacher:
    """A teacher with fresh weights: its published configuration, or a tiny one for tests. Raises InputError."""
    entry = find(name)
    teacher: Teacher = import_module(f"{__package__}.{entry.module}").build(size, *entry.arguments)
    teacher.name, teacher.card = name, entry.card
    return teacher


def find(name: str) -> Entry:
    """The entry of a teacher. Raises InputError when none has this name."""
    if name not in TEACHERS:
        raise InputError(f"unknown teacher {name!r}; expected one of {', '.join(TEACHERS)}")
    return TEACHERS[name]
