"""A new degradation without retraining: one more leaf, one more LoRA expert, everything else frozen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..runtime.errors import InputError
from ..runtime.pictures import read
from ..runtime.routing import Routing
from .data import Batch, Mixture, Photographs, list_pictures
from .recipe import Schedule
from .student import Student
from .weights import Trained

# A few thousand numbers learn, so steps are large; decay would move the frozen ones.
EXPERT_SCHEDULE = Schedule(steps=1000, batch=8, patch=64, learning_rate=0.04, weight_decay=0.0, warmup=10, ema=0.95)
# A new leaf's logit before training: closed.
CLOSED = -6.0
# Parameters of a student that have rows or columns by expert or by leaf.
EXPERT_ROWS, EXPERT_COLUMNS, LEAF_ROWS = ("lora_a.weight", "lora_a.bias"), ("lora_b.weight",), ("encoder.head.output",)


def add_expert(trained: Trained, leaf: str, parent: str) -> Trained:
    """The student with one more leaf under `parent`, which changes nothing yet. Raises InputError."""
    tree = trained.routing.tree
    if parent not in tree:
        raise InputError(f"unknown parent {parent!r}; expected one of {', '.join(tree)}")
    if leaf in trained.routing.experts or not leaf.isidentifier():
        raise InputError(f"{leaf!r} cannot be a new expert; expected a new name of letters, digits and underscores")
    grown = {name: (*leaves, leaf) if name == parent else leaves for name, leaves in tree.items()}
    routing = trained.routing.model_copy(update={"tree": grown})
    config = trained.student.config.model_copy(update={"experts": routing.experts, "leaves": routing.leaves})
    student = Student(config)
    state = student.state_dict()
    for name, value in trained.student.state_dict().items():
        state[name] = _widened(name, value, state[name], student, leaf)
    student.load_state_dict(state)
    return Trained(student, routing, trained.provenance)


def _widened(name: str, old: Tensor, new: Tensor, student: Student, leaf: str) -> Tensor:
    """`old` with the rows or columns of `leaf` put in: a silent expert, a closed leaf."""
    kept = ~new_entries(name, new, student, leaf)
    if kept.all():
        return old
    wide = torch.zeros_like(new)
    if name.endswith(EXPERT_ROWS):
        wide = new.clone()  # random as in a fresh student; its columns of B are zero
    if name == "encoder.head.output.bias":
        wide.fill_(CLOSED)
    wide[kept] = old.flatten()
    return wide


def new_entries(name: str, value: Tensor, student: Student, leaf: str) -> Tensor:
    """Which entries of a parameter belong to `leaf` alone: a mask of its shape."""
    mask = torch.zeros_like(value, dtype=torch.bool)
    rank, first = student.config.rank, student.config.experts.index(leaf) * student.config.rank
    if name.endswith(EXPERT_ROWS):
        mask[first : first + rank] = True
    elif name.endswith(EXPERT_COLUMNS):
        mask[:, first : first + rank] = True
    elif name.startswith(LEAF_ROWS):
        mask[2 + student.config.leaves.index(leaf)] = True
    return mask


def freeze_all_but(student: Student, leaf: str) -> None:
    """Let gradients reach the entries of `leaf` alone."""
    for name, parameter in student.named_parameters():
        mask = new_entries(name, parameter, student, leaf)
        if mask.any():
            parameter.register_hook(lambda gradient, mask=mask: gradient * mask.to(gradient.device))
        else:
            parameter.requires_grad_(False)


@dataclass(frozen=True)
class PairsAmongOthers:
    """Pairs of the new degradation, every third sample; between them the clean halves with the degradations already known."""

    folder: Path
    routing: Routing
    leaf: str
    patch: int
    seed: int

    def samples(self, start: int, stop: int) -> Dataset[Batch]:
        """Raises InputError when `folder` holds no pairs (`degraded/NAME`, `clean/NAME`)."""
        pairs = [(path, self.folder / "clean" / path.name) for path in list_pictures(self.folder / "degraded")]
        for _, clean in pairs:
            if not clean.is_file():
                raise InputError(f"{clean} is missing; expected a clean picture for every degraded one")
        known = Photographs(self.folder / "clean", Mixture(), self.patch, self.seed).samples(start, stop)
        return _Mixed(self, pairs, known, start, stop)


class _Mixed(Dataset[Batch]):
    def __init__(
        self, source: PairsAmongOthers, pairs: list[tuple[Path, Path]], known: Dataset[Batch], start: int, stop: int
    ) -> None:
        self.source, self.pairs, self.known, self.start, self.stop = source, pairs, known, start, stop

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: int) -> Batch:
        leaves, patch = self.source.routing.leaves, self.source.patch
        place = leaves.index(self.source.leaf)
        if (self.start + index) % 3:
            sample = self.known[index]
            others = iter(sample.severities.tolist())
            return sample._replace(
                severities=torch.tensor([0.0 if at == place else next(others) for at in range(len(leaves))])
            )
        rng = np.random.default_rng([self.source.seed, 1, self.start + index])
        degraded, clean = (read(path).rgb for path in self.pairs[rng.integers(len(self.pairs))])
        height, width = clean.shape[:2]
        if degraded.shape != clean.shape or min(height, width) < patch:
            raise InputError(f"pairs must have one size, at least {patch}²; got {width}×{height}")
        top, left = int(rng.integers(height - patch + 1)), int(rng.integers(width - patch + 1))
        crops = [
            torch.from_numpy(np.ascontiguousarray(x[top : top + patch, left : left + patch].transpose(2, 0, 1)))
            for x in (clean, degraded)
        ]
        severities = torch.zeros(len(leaves))
        severities[place] = 1.0
        return Batch.untaught(crops[0], crops[1], severities)
