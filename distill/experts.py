"""A new degradation without retraining: one more leaf, one more LoRA expert, everything else frozen.

The leaf is fitted first, then left alone, and the expert is trained on the pairs. A leaf that opens where it should not
is what the other degradations would pay for, so it has a unit of its own in the assessing head: exactly closed on
whatever scores no higher than the pictures the student knows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ..runtime.errors import InputError
from ..runtime.routing import Routing
from ..runtime.tree import LEAVES
from .data import Batch, Mixture, Pictures, list_pictures, to_tensor
from .degradations import degrade
from .distillation import own_gates
from .recipe import Schedule
from .student import HIDDEN, Encoded, Student, StudentConfig
from .weights import Trained

# A few thousand numbers learn, so steps are large; decay would move the frozen ones.
EXPERT_SCHEDULE = Schedule(steps=400, batch=4, patch=128, learning_rate=0.04, weight_decay=0.0, warmup=10, ema=0.95)
# A new leaf's logit where its unit is silent: a gate of 6e-6, too little to be seen even on a clean picture.
CLOSED = -12.0
# Pictures that a leaf is fitted on: with the new degradation, and of all the student knows, half of them restored once.
PRESENT, KNOWN = 192, 512
LOOK = 256  # their side, where the pairs are as large: about a tile, which is what is assessed in use
# Known pictures are a mixture like training's, with more clean ones: there the least change shows.
OTHERS = Mixture(members=(0.25, 0.45, 0.2, 0.1))
DECAY = 1e-3  # of the fit's squared weights
# Where the gate is half open: this far from the highest score of a known picture to the LOW quantile of the new ones.
HALFWAY, LOW = 0.4, 0.1
# Parameters of a student that have rows or columns by expert.
EXPERT_ROWS, EXPERT_COLUMNS = ("lora_a.weight", "lora_a.bias"), ("lora_b.weight",)


def add_expert(trained: Trained, leaf: str, parent: str) -> Trained:
    """The student with one more leaf under `parent`, which changes nothing yet. Raises InputError."""
    tree = trained.routing.tree
    if parent not in tree:
        raise InputError(f"unknown parent {parent!r}; expected one of {', '.join(tree)}")
    if leaf in trained.routing.experts or not leaf.isidentifier():
        raise InputError(f"{leaf!r} cannot be a new expert; expected a new name of letters, digits and underscores")
    grown = {name: (*leaves, leaf) if name == parent else leaves for name, leaves in tree.items()}
    # Not a copy: that would keep the leaves it has listed.
    routing = Routing.model_validate(trained.routing.model_dump() | {"tree": grown})
    config = trained.student.config.model_copy(update={"experts": routing.experts, "leaves": routing.leaves})
    student = Student(config)
    state = student.state_dict()
    for name, value in trained.student.state_dict().items():
        state[name] = _widened(name, value, state[name], config, leaf)
    student.load_state_dict(state)
    return Trained(student, routing, trained.provenance)


def _widened(name: str, old: Tensor, new: Tensor, config: StudentConfig, leaf: str) -> Tensor:
    """`old` with the rows or columns of `leaf` put in: a silent expert, a closed leaf."""
    kept = ~new_entries(name, new, config, leaf)
    if kept.all():
        return old
    wide = torch.zeros_like(new)
    if name.endswith(EXPERT_ROWS):
        wide = new.clone()  # random as in a fresh student; its columns of B are zero
    if name == "encoder.head.output.bias":
        wide.fill_(CLOSED)
    wide[kept] = old.flatten()
    return wide


def new_entries(name: str, value: Tensor, config: StudentConfig, leaf: str) -> Tensor:
    """Which entries of a parameter belong to `leaf` alone: a mask of its shape."""
    mask = torch.zeros_like(value, dtype=torch.bool)
    first = config.experts.index(leaf) * config.rank
    row, unit = 2 + config.leaves.index(leaf), _unit(config, leaf)
    if name.endswith(EXPERT_ROWS):
        mask[first : first + config.rank] = True
    elif name.endswith(EXPERT_COLUMNS):
        mask[:, first : first + config.rank] = True
    elif name.startswith("encoder.head.hidden"):
        mask[unit] = True
    elif name.startswith("encoder.head.output"):
        mask[row] = True
        if value.ndim == 2:
            mask[:, unit] = True
    return mask


def _unit(config: StudentConfig, leaf: str) -> int:
    """The hidden unit of the assessing head that an added leaf has to itself."""
    return HIDDEN + [name for name in config.leaves if name not in LEAVES].index(leaf)


def freeze_all_but(student: Student, leaf: str) -> None:
    """Let gradients reach the expert of `leaf` alone."""
    for name, parameter in student.named_parameters():
        if name.endswith((*EXPERT_ROWS, *EXPERT_COLUMNS)):
            mask = new_entries(name, parameter, student.config, leaf)
            parameter.register_hook(lambda gradient, mask=mask: gradient * mask.to(gradient.device))
        else:
            parameter.requires_grad_(False)


def fit_leaf(student: Student, leaf: str, pairs: Pairs) -> None:
    """Teach the assessing head when `leaf` is present: logistic regression on what it averages over the picture.

    The logit is CLOSED + relu(score − t), with t the highest score of a known picture. A third of the pictures is kept
    out of the regression, and how high the new degradation scores is read from those. Raises InputError when that is not
    higher than what the student knows.
    """
    with torch.no_grad():
        present = torch.cat([_averages(student.encode(picture[None])) for picture in pairs.new(PRESENT)])
        known = torch.cat(
            [_averages(seen) for picture in pairs.known(KNOWN // 2) for seen in _twice(student, picture, pairs.routing)]
        )
    kept = len(present) // 3, len(known) // 3
    fitted = torch.cat([present[kept[0] :], known[kept[1] :]])
    labels = (torch.arange(len(fitted)) < len(present) - kept[0]).float()
    centre, spread = fitted.mean(0), fitted.std(0) + 1e-3
    weight = _regression((fitted - centre) / spread, labels) / spread
    highest, low = (known @ weight).max(), (present[: kept[0]] @ weight).quantile(LOW)
    if low <= highest:
        raise InputError(
            f"{leaf} cannot be told from what the student knows: {LOW:.0%} of its crops look like known ones; "
            "expected pairs with more of the degradation, and of that alone"
        )
    slope = -CLOSED / (HALFWAY * (low - highest))
    head, unit, row = student.encoder.head, _unit(student.config, leaf), 2 + student.config.leaves.index(leaf)
    with torch.no_grad():
        head.hidden.weight[unit] = slope * weight
        head.hidden.bias[unit] = -slope * highest
        head.output.weight[row, unit] = 1.0


def _averages(encoded: Encoded) -> Tensor:
    """What the assessing head sees of a picture: (1, channels)."""
    return torch.cat([features.mean((2, 3)) for features in encoded.features], 1)


def _twice(student: Student, picture: Tensor, routing: Routing) -> tuple[Encoded, Encoded]:
    """A picture (3, H, W), and what one iteration makes of it, as they are assessed."""
    encoded = student.encode(picture[None])
    gates = own_gates(routing, encoded.assessment, student.config.rank)
    restored, _ = student.refine(picture[None], encoded, encoded, gates)
    return encoded, student.encode(restored.clamp(0, 1))


def _regression(inputs: Tensor, labels: Tensor) -> Tensor:
    """Weights (C,) of a logistic regression of labels (N,) on standardised inputs (N, C)."""
    parameters = torch.zeros(inputs.shape[1] + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([parameters], max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = inputs @ parameters[1:] + parameters[0]
        value = F.binary_cross_entropy_with_logits(logits, labels) + DECAY * parameters.square().sum()
        value.backward()
        return value

    optimizer.step(loss)  # pyright: ignore[reportArgumentType]  any closure that returns a number
    return parameters.detach()[1:]


@dataclass(frozen=True)
class Pairs:
    """Pictures of the new degradation and what they should be: `folder/degraded/NAME`, `folder/clean/NAME`."""

    folder: Path
    routing: Routing
    leaf: str
    patch: int
    seed: int

    def samples(self, start: int, stop: int) -> Dataset[Batch]:
        """Crops of the pairs. Raises InputError when `folder` holds none."""
        return _Crops(self, start, stop, self.patch, stream=1)

    def new(self, count: int) -> Iterator[Tensor]:
        """`count` pictures (3, H, W) with the new degradation."""
        crops = _Crops(self, 0, count, LOOK, stream=2)
        return (crops[index].degraded for index in range(count))

    def known(self, count: int) -> Iterator[Tensor]:
        """`count` pictures (3, H, W) that the student knows: clean halves, degraded anew.

        Every second one has its colours exchanged: a few photographs must stand for all, and a picture without red is
        no new degradation.
        """
        crops = _Crops(self, 0, count, LOOK, stream=3)
        for index in range(count):
            rng = np.random.default_rng([self.seed, 4, index])
            picture = crops[index].clean.permute(1, 2, 0).numpy()
            if index % 2:
                picture = picture[..., rng.permutation(3)]
            yield to_tensor(degrade(picture, OTHERS.draw(rng), int(rng.integers(2**31))))

    def paths(self) -> list[tuple[Path, Path]]:
        """Degraded and clean halves. Raises InputError when one is missing, or all are."""
        degraded, clean = self.folder / "degraded", self.folder / "clean"
        pairs = [(path, clean / path.relative_to(degraded)) for path in list_pictures(degraded)]
        for _, path in pairs:
            if not path.is_file():
                raise InputError(f"{path} is missing; expected a clean picture for every degraded one")
        return pairs


class _Crops(Dataset[Batch]):
    """Random crops of `side`², or of the shorter side of a picture that is smaller."""

    def __init__(self, pairs: Pairs, start: int, stop: int, side: int, stream: int) -> None:
        self.pairs, self.start, self.stop, self.side, self.stream = pairs, start, stop, side, stream
        self._paths, self._pictures = pairs.paths(), Pictures()

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: int) -> Batch:
        rng = np.random.default_rng([self.pairs.seed, self.stream, self.start + index])
        paths = self._paths[rng.integers(len(self._paths))]
        degraded, clean = (self._pictures[path] for path in paths)
        height, width = clean.shape[:2]
        if degraded.shape != clean.shape or min(height, width) < self.pairs.patch:
            raise InputError(
                f"{paths[0]}: pairs must have one size, at least {self.pairs.patch}²; got {width}×{height}"
            )
        side = min(self.side, height // 8 * 8, width // 8 * 8)
        top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))

        def crop(pixels: NDArray[np.uint8]) -> Tensor:
            return to_tensor(pixels[top : top + side, left : left + side]) / 255

        severities = torch.tensor([float(leaf == self.pairs.leaf) for leaf in self.pairs.routing.leaves])
        return Batch.untaught(crop(clean), crop(degraded), severities)
