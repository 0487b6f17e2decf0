"""What every teacher must do, run over all of them in their tiny configuration, trained here on real photographs."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from burnish.distill.data import Batch, DegradedPatches, Mixture, Photographs, fingerprint, list_pictures
from burnish.distill.distillation import DistillationObjective, Weights
from burnish.distill.metrics import psnr
from burnish.distill.recipe import Schedule
from burnish.distill.student import SIZES, Student
from burnish.distill.teachers.cache import (
    CachedTrajectories,
    Manifest,
    TeacherProducer,
    begin_cache,
    digest,
    launch,
    write_cache,
)
from burnish.distill.teachers.protocol import Teacher, origin
from burnish.distill.teachers.registry import TEACHERS, create
from burnish.distill.teachers.sipl import SIPL
from burnish.distill.teachers.unirestorer import UniRestorer
from burnish.distill.training import train
from burnish.distill.weights import Trained, load_teacher, save_teacher
from burnish.runtime.errors import InputError
from burnish.runtime.routing import Routing
from safetensors.torch import load_file
from shared import PHOTOS, refine
from torch import Tensor
from torch.utils.data import default_collate

# The reduced teacher is trained by a recipe; its tiny configuration is that of sipl-promptir.
NAMES = [name for name in TEACHERS if name != "sipl-promptir-s"]
# Steps, learning rate, batch, patch, and what is to be undone. One of each kind is trained: backbones differ in nothing
# that training sees.
NOISE = Mixture(members=(0.0, 1.0), leaves={"noise": 1})
TRAINED = {
    "promptir": (200, 1e-2, 8, 48, NOISE),
    "sipl-promptir": (300, 1e-2, 8, 48, NOISE),
    "uir-lora": (200, 8e-3, 8, 48, NOISE),
    "unirestorer": (150, 2e-3, 4, 48, NOISE),
    "rar": (100, 2e-3, 8, 64, NOISE),
}


def tiny(name: str) -> Teacher:
    torch.manual_seed(zlib.crc32(name.encode()))
    return create(name, "tiny").eval()


@pytest.mark.parametrize("name", NAMES)
def test_any_size_comes_back_in_its_size(name: str) -> None:
    teacher = tiny(name)
    for height, width in ((37, 50), (3, 5)):
        picture = torch.rand(2, 3, height, width)
        trajectory = teacher.restore(picture, 2)
        assert [step.picture.shape for step in trajectory] == [picture.shape] * 2
        for step in trajectory:
            assert 0 <= float(step.picture.min()) <= float(step.picture.max()) <= 1
            assert (step.features is None) == (teacher.feature_width is None)
            if step.features is not None:
                assert step.features.shape[:2] == (2, teacher.feature_width)


@pytest.mark.parametrize("name", NAMES)
def test_weights_come_back_as_they_were(name: str, tmp_path: Path) -> None:
    teacher = tiny(name)
    save_teacher(teacher, "tiny", tmp_path / "t.safetensors")
    again = load_teacher(tmp_path / "t.safetensors", name)
    for key, value in teacher.state_dict().items():
        torch.testing.assert_close(again.state_dict()[key], value, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_another_architecture_is_named(name: str) -> None:
    foreign = {"state_dict": {"middle_blks.0.beta": torch.zeros(1)}}
    if name in ("nafnet", "sipl-nafnet"):
        foreign = {"state_dict": {"net.prompt1.prompt_param": torch.zeros(1)}}
    with pytest.raises(InputError) as error:
        tiny(name).load_published(foreign)
    assert ("PromptIR" if "naf" in name else "NAFNet") in str(error.value)
    assert "first" in str(error.value)


class Learned(NamedTuple):
    """A tiny teacher after its training, what it was trained to undo, and held-out pictures that suffer from that."""

    teacher: Teacher
    mixture: Mixture
    clean: Tensor
    degraded: Tensor


@pytest.fixture(scope="module", params=list(TRAINED))
def learned(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Learned:
    """A fresh teacher after under a minute of one core."""
    steps, rate, batch, patch, mixture = TRAINED[request.param]
    teacher = tiny(request.param).train()
    if isinstance(teacher, SIPL):  # in so short a time guidance alone gains nothing
        teacher.configure({"input": "replace"})
    schedule = Schedule(
        steps=steps, learning_rate=rate, batch=batch, patch=patch, workers=0, warmup=10, ema=0.9, clip=1.0
    )
    source = Photographs(PHOTOS / "train", mixture, patch, 0)
    weights = train(teacher.objective(), schedule, source, tmp_path_factory.mktemp("trained"), lambda _: None)
    teacher.load_state_dict(load_file(weights))
    patches = DegradedPatches(list_pictures(PHOTOS / "dev"), mixture, 64, 16, seed=5)
    held_out = Batch(*default_collate([patches[index] for index in range(16)]))
    return Learned(teacher.eval(), mixture, held_out.clean, held_out.degraded)


def test_training_restores(learned: Learned) -> None:
    teacher, _, clean, degraded = learned
    trajectory = teacher.restore(degraded, 2)
    before, first, second = (float(psnr(x, clean).mean()) for x in (degraded, *(step.picture for step in trajectory)))
    assert first > before + 1.0
    # Where rounds are the published method, a second one restores further.
    assert teacher.card.published_rounds is not None or second > first + 0.05
    if isinstance(teacher, UniRestorer):
        assert teacher.tree.grown


def test_a_student_distilled_from_its_cache_restores(learned: Learned, tmp_path: Path) -> None:
    """The truth has no part in it: what the student learned it can have from the teacher alone."""
    teacher, mixture, clean, degraded = learned
    rounds = teacher.card.published_rounds or 2
    manifest = Manifest(
        teacher=origin(teacher.name, teacher.card),
        weights=None,
        weights_sha256=digest(teacher),
        settings=teacher.settings.model_dump(),
        rounds=rounds,
        feature_width=teacher.feature_width,
        samples=128,
        patch=48,
        seed=1,
        mixture=mixture,
        data="train",
        data_sha256=fingerprint(PHOTOS / "train"),
    )
    begin_cache(manifest, tmp_path / "cache")
    producer = TeacherProducer(teacher, Photographs(PHOTOS / "train", mixture, 48, 1), rounds, torch.device("cpu"))
    write_cache(producer, manifest, tmp_path / "cache", launch(1), lambda *_: None)

    torch.manual_seed(0)
    student = Trained(Student(SIZES["nano"]))
    untaught = float(psnr(refine(student, degraded, rounds)[-1], clean).mean())
    objective = DistillationObjective(
        student.student.train(),
        Weights(image=0.0, teacher=1.0, unroll=(1 / rounds,) * rounds),
        Routing(),
        feature_width=teacher.feature_width,
    )
    schedule = Schedule(steps=400, batch=8, patch=48, workers=0, warmup=10, ema=0.9, learning_rate=2e-3)
    weights = train(objective, schedule, CachedTrajectories(tmp_path / "cache", 48, 0), tmp_path, lambda _: None)
    student.student.load_state_dict(load_file(weights))
    taught = float(psnr(refine(student, degraded, rounds)[-1], clean).mean())
    before = float(psnr(degraded, clean).mean())
    assert taught > max(before, untaught) + 1.0, f"{before:.2f}, {untaught:.2f} → {taught:.2f} dB"
