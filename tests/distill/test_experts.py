"""A degradation the student never saw: learned by one new expert, while the others stay as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from burnish.cli.training import add_expert_command
from burnish.distill.degradations import degrade
from burnish.distill.distillation import route_batch
from burnish.distill.experts import EXPERT_SCHEDULE, add_expert, new_entries
from burnish.distill.metrics import psnr
from burnish.distill.weights import Trained, read_student
from burnish.runtime.bundle import EMBEDDED
from burnish.runtime.errors import InputError
from burnish.runtime.pictures import Picture, read, write
from conftest import PHOTOS
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

Array = NDArray[np.float32]


def underwater(picture: Array) -> Array:
    """Red is lost, blue and green are veiled: none of the seven leaves does that."""
    return np.clip(picture * np.float32([0.35, 0.8, 0.85]) + np.float32([0.0, 0.12, 0.18]), 0, 1).astype(np.float32)


def tensor(pictures: list[Array]) -> Tensor:
    return torch.from_numpy(np.stack(pictures).transpose(0, 3, 1, 2).copy())


@torch.no_grad()
def restored(trained: Trained, pictures: Tensor) -> Tensor:
    student = trained.student.eval()
    encoded = student.encode(pictures)
    gates = route_batch(trained.routing, encoded.assessment[:, 1], encoded.assessment[:, 2:].sigmoid())
    gates = gates.repeat_interleave(student.config.rank, 1)[..., None, None]
    return student.refine(pictures, encoded, encoded, gates)[0].clamp(0, 1)


@pytest.fixture(scope="module")
def embedded() -> Trained:
    return read_student(EMBEDDED / "student.safetensors")


def test_a_new_expert_changes_nothing_before_it_learns(embedded: Trained) -> None:
    grown = add_expert(embedded, "water", "weather")
    assert grown.student.config.experts.index("water") == len(embedded.routing.tree) + 3
    picture = torch.rand(2, 3, 64, 64)
    before, after = restored(embedded, picture), restored(grown, picture)
    assert (before - after).abs().max() < 1e-3


@pytest.mark.parametrize(("leaf", "parent"), [("rain", "weather"), ("fog", "sky"), ("../x", "weather")])
def test_a_bad_name_is_refused(embedded: Trained, leaf: str, parent: str) -> None:
    with pytest.raises(InputError):
        add_expert(embedded, leaf, parent)


def test_the_new_degradation_is_learned_and_the_others_lose_nothing(embedded: Trained, tmp_path: Path) -> None:
    for index, path in enumerate(sorted((PHOTOS / "train").glob("*.jpg"))):
        clean = read(path).rgb
        for kind, picture in (("clean", clean), ("degraded", underwater(clean))):
            (tmp_path / "pairs" / kind).mkdir(parents=True, exist_ok=True)
            write(Picture(picture), tmp_path / "pairs" / kind / f"{index}.png")
    schedule = EXPERT_SCHEDULE.model_copy(update={"steps": 600, "workers": 0})
    weights = add_expert_command(
        "water", tmp_path / "pairs", "weather", None, schedule, tmp_path / "run", Console(quiet=True)
    )
    grown = read_student(weights)

    held_out = [read(path).rgb[60:188, 60:188] for path in sorted((PHOTOS / "eval").glob("*.png"))]
    clean, water = tensor(held_out), tensor([underwater(picture) for picture in held_out])
    before, after = (float(psnr(restored(t, water), clean).mean()) for t in (embedded, grown))
    assert after > before + 2.0
    lost: dict[str, float] = {}
    for kind in ("gaussian_noise", "rain", "snow", "haze", "low_light", "jpeg", "defocus_blur"):
        other = tensor([degrade(picture, {kind: 0.7}, seed) for seed, picture in enumerate(held_out)])
        before, after = (float(psnr(restored(t, other), clean).mean()) for t in (embedded, grown))
        lost[kind] = before - after
    # Measured: 0.00 but for defocus blur, 0.08; the room is for other processors' rounding.
    assert max(lost.values()) < 0.15, lost
    old = embedded.student.state_dict()
    for name, value in grown.student.state_dict().items():
        untouched = ~new_entries(name, value, grown.student, "water")
        torch.testing.assert_close(value[untouched], old[name].flatten(), rtol=0, atol=0)
