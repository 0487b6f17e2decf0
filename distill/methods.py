"""The student's methods as they are exported: flat tensors in and out, fixed tile, results clipped."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..runtime.methods import ENCODE, REFINE
from .macs import count_macs
from .student import Refiner, Student


class EncodeMethod(nn.Module):
    """image → feature1, feature2, feature3, tokens, assessment."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.encoder = student.encoder

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        features, tokens, assessment = self.encoder(image)
        return (*features, tokens, assessment)


class RefineMethod(nn.Module):
    """current, original1…3, estimate2…3, tokens, gates → restored in [0, 1], quality."""

    def __init__(self, refiner: Refiner) -> None:
        super().__init__()
        self.refiner = refiner

    def forward(
        self,
        current: Tensor,
        original1: Tensor,
        original2: Tensor,
        original3: Tensor,
        estimate2: Tensor,
        estimate3: Tensor,
        tokens: Tensor,
        gates: Tensor,
    ) -> tuple[Tensor, Tensor]:
        restored, quality = self.refiner(
            current, (original1, original2, original3), (estimate2, estimate3), tokens, gates
        )
        return torch.clamp(restored, 0.0, 1.0), quality


def methods(student: Student) -> dict[str, nn.Module]:
    """All methods of a student in evaluation mode, by name."""
    refiners = {name: RefineMethod(refiner).eval() for name, refiner in student.refiners.items()}
    return {ENCODE: EncodeMethod(student).eval(), **refiners}


@torch.no_grad()
def example_inputs(student: Student, tile: int) -> dict[str, tuple[Tensor, ...]]:
    """Inputs of the right shapes for tracing every method."""
    image = torch.rand(1, 3, tile, tile, generator=torch.Generator().manual_seed(0))
    *features, tokens, _ = EncodeMethod(student.eval())(image)
    # Copies: torch.export takes two inputs that are one tensor for one input.
    estimate = [f.clone() for f in features[1:]]
    gates = torch.ones(1, len(student.config.experts) * student.config.rank, 1, 1)
    refined = (image, *features, *estimate, tokens, gates)
    return {ENCODE: (image,), **dict.fromkeys(student.refiners, refined)}


def multiply_adds(student: Student, side: int = 256) -> dict[str, int]:
    """Multiply-adds of encode and of refine, or any specialist, at `side`², attention products counted."""
    inputs, called = example_inputs(student, side), methods(student)
    return {name: count_macs(lambda m=called[name], x=inputs[name]: m(*x)) for name in (ENCODE, REFINE)}
