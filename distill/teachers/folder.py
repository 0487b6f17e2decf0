"""The folder teacher: trajectories that somebody's own program wrote.

NAME/round_0.png … round_R.png   the degraded picture and what each round made of it
NAME/clean.png                   optional: the truth; without it the best round stands for it
NAME/meta.json                   optional: {"degradation": {"rain": 0.7, …}, "quality": [0.6, 0.8, …]}

`degradation` is how much of a leaf there is, in [0, 1]; `quality` a number a round, the larger the better: the best round is
the one that has the largest, and without it the last.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...runtime.errors import InputError
from ...runtime.tree import LEAVES
from ..data import Batch, Pictures, to_tensor
from .protocol import Card

NAME = "folder"
CARD = Card(
    title="a folder of trajectories",
    paper="whatever wrote it",
    licence="that of the program and weights which wrote the pictures; yours to check",
    commercial_use=False,
)


@dataclass(frozen=True)
class FolderTrajectories:
    """Random crops of the trajectories below a folder (a `cache.Producer`)."""

    folder: Path
    patch: int
    seed: int

    @cached_property
    def trajectories(self) -> list[Path]:
        """Folders of one trajectory each. Raises InputError when there is none or their rounds differ in number."""
        found = sorted(path.parent for path in self.folder.glob("*/round_0.png"))
        if not found:
            raise InputError(f"no trajectory in {self.folder}; expected NAME/round_0.png, NAME/round_1.png, …")
        counts = {path: len(_rounds(path)) for path in found}
        wanted = max(2, counts[found[0]])
        for path, count in counts.items():
            if count != wanted:
                raise InputError(f"{path} has {count - 1} rounds; expected {wanted - 1}, as many as every other")
        return found

    @cached_property
    def _pictures(self) -> Pictures:
        return Pictures()

    @property
    def rounds(self) -> int:
        return len(_rounds(self.trajectories[0])) - 1

    def batch(self, start: int, stop: int) -> Batch:
        samples = [self._sample(index) for index in range(start, stop)]
        return Batch(*(torch.stack(column) for column in zip(*samples, strict=True)))

    def _sample(self, index: int) -> Batch:
        rng = np.random.default_rng([self.seed, index])
        folder = self.trajectories[index % len(self.trajectories)]
        rounds = [self._pictures[path] for path in _rounds(folder)]
        clean = folder / "clean.png"
        severities, best = _read_meta(folder / "meta.json", len(rounds) - 1)
        truth = self._pictures[clean] if clean.exists() else rounds[best]
        height, width = truth.shape[:2]
        if min(height, width) < self.patch or any(p.shape != truth.shape for p in rounds):
            raise InputError(
                f"{folder}: got {width}×{height} pixels; expected pictures of one size, at least {self.patch}², "
                "or a smaller --patch"
            )
        top, left = (int(rng.integers(side - self.patch + 1)) for side in (height, width))
        crops = [to_tensor(p[top : top + self.patch, left : left + self.patch]) / 255 for p in (truth, *rounds)]
        untaught = Batch.untaught(crops[0], crops[1], severities)
        return untaught._replace(rounds=torch.stack(crops[2:]), features=torch.zeros(len(crops) - 2, 0, 1, 1))


def _rounds(folder: Path) -> list[Path]:
    numbered = {int(m[1]): p for p in folder.iterdir() if (m := re.fullmatch(r"round_(\d+)\.png", p.name))}
    return [numbered[turn] for turn in range(len(numbered)) if turn in numbered]


def _read_meta(meta: Path, rounds: int) -> tuple[Tensor, int]:
    """Severity of every leaf, and the number of the best round. Raises InputError."""
    severities, best = torch.zeros(len(LEAVES)), rounds
    if not meta.exists():
        return severities, best
    try:
        content: Any = json.loads(meta.read_text())
        for leaf, value in content.get("degradation", {}).items():
            severities[LEAVES.index(leaf)] = float(value)
        quality = [float(value) for value in content.get("quality", ())]
    except (ValueError, TypeError, AttributeError):
        wanted = '{"degradation": {leaf: severity}, "quality": [number, …]}'
        raise InputError(f"{meta}: expected {wanted} with leaves {', '.join(LEAVES)}") from None
    if quality and len(quality) != rounds:
        raise InputError(f"{meta}: quality has {len(quality)} numbers; expected {rounds}, one a round")
    return severities, 1 + quality.index(max(quality)) if quality else best
