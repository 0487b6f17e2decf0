"""A widened student computes what the smaller one does, and what is new in it learns."""

from __future__ import annotations

import copy

import pytest
import torch
from burnish.distill.data import Batch
from burnish.distill.distillation import DistillationObjective, Weights, iterate
from burnish.distill.specialists import without_specialists
from burnish.distill.student import SIZES, Student
from burnish.distill.weights import read_student
from burnish.distill.widen import widen
from burnish.runtime.bundle import EMBEDDED
from burnish.runtime.errors import InputError
from burnish.runtime.routing import Routing


@torch.no_grad()
def test_the_same_pictures_and_judgements() -> None:
    small = without_specialists(read_student(EMBEDDED / "student.safetensors"))
    base = widen(small.student, SIZES["base"]).eval()
    pictures = torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(0))
    both = (iterate(model, small.routing, pictures, 2) for model in (small.student, base))
    for expected, got in zip(*both, strict=True):
        torch.testing.assert_close(got.restored, expected.restored)
        torch.testing.assert_close(got.quality, expected.quality)
        torch.testing.assert_close(got.estimate.assessment, expected.estimate.assessment)


def test_all_of_it_learns() -> None:
    small = without_specialists(read_student(EMBEDDED / "student.safetensors"))
    base = widen(small.student, SIZES["base"]).train()
    before = copy.deepcopy(base.state_dict())
    objective = DistillationObjective(base, Weights(unroll=(1.0,)), small.routing)
    optimizer = torch.optim.SGD(objective.parameters(), lr=1e-3)
    clean = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    noisy = (clean + 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    present = torch.ones(1, len(base.config.leaves))
    for _ in range(5):  # a block that begins as the identity passes gradients on from its second step
        optimizer.zero_grad()
        objective(Batch.untaught(clean, noisy, present))["loss"].backward()
        optimizer.step()
    still = [name for name, value in base.state_dict().items() if torch.equal(value, before[name])]
    # The logits of attention are level over all positions wherever keys are shifted alike.
    assert [name for name in still if not name.endswith("key.bias")] == []


@pytest.mark.parametrize(("start", "size"), [("base", "small"), ("small", "nano"), ("nano", "small")])
def test_another_shape_is_refused(start: str, size: str) -> None:
    with pytest.raises(InputError, match=f"size {start} cannot become {size}"):
        widen(Student(SIZES[start]), SIZES[size])


def test_privileged_guidance_ends_with_the_training(student: Student) -> None:
    """Tokens are told of the truth at first, and at the end learn as in use."""
    generator = torch.Generator().manual_seed(2)
    clean, degraded = torch.rand(4, 3, 32, 32, generator=generator), torch.rand(4, 3, 32, 32, generator=generator)
    batch = Batch.untaught(clean, degraded, torch.zeros(4, len(student.config.leaves)))

    def loss(privileged: float, progress: float) -> float:
        weights = Weights(privileged=privileged, unroll=(1.0,), true_gates=0.0)
        objective = DistillationObjective(student, weights, Routing())
        objective.progress = progress
        torch.manual_seed(0)
        with torch.no_grad():
            return float(objective(batch)["loss"])

    assert loss(0.5, 0.0) != loss(0.0, 0.0)
    assert loss(0.5, 1.0) == loss(0.0, 1.0)
