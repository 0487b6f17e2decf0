"""Training: samples by index, resuming without a trace, learning on real photographs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from burnish.distill.data import Batch, DegradedPatches, Mixture, list_pictures
from burnish.distill.distillation import DistillationObjective, Weights, route_batch
from burnish.distill.recipe import Schedule
from burnish.distill.student import SIZES, Student
from burnish.distill.teachers.promptir import PromptIRConfig
from burnish.distill.teachers.sipl import SIPLConfig, SIPLPromptIR
from burnish.distill.teachers.training import PrivilegedObjective
from burnish.distill.training import train
from burnish.distill.weights import load_student, load_teacher, save_weights
from burnish.runtime.errors import InputError
from burnish.runtime.routing import Routing, route
from conftest import PHOTOS
from safetensors.torch import load_file

TINY = SIPLConfig(
    base=PromptIRConfig(
        dim=8, blocks=(1, 1, 1, 1), refinement=1, prompt_dims=(8, 8, 8), prompt_sizes=(8, 4, 2), stride=2
    ),
    dictionary_sizes=(6, 6, 6),
    dictionary_std=0.5,
)


def quick(steps: int, **changes: object) -> Schedule:
    base = dict(steps=steps, batch=4, patch=32, workers=0, warmup=5, ema=0.5, log_seconds=0.0, save_seconds=0.0)
    return Schedule.model_validate(base | changes)


def objective(teacher: SIPLPromptIR | None = None, **weights: object) -> DistillationObjective:
    torch.manual_seed(0)
    return DistillationObjective(Student(SIZES["nano"]), teacher, Weights.model_validate(weights), Routing())


def test_a_sample_depends_on_its_index_alone() -> None:
    photos = list_pictures(PHOTOS / "train")
    whole = DegradedPatches(photos, Mixture(), 32, 10, seed=3)
    rest = DegradedPatches(photos, Mixture(), 32, 10, seed=3, start=6)
    assert len(rest) == 4
    for offset in range(4):
        for a, b in zip(rest[offset], whole[6 + offset], strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = load_file(train(objective(), quick(6), PHOTOS / "train", Mixture(), tmp_path / "whole", lambda _: None))

    class Killed(Exception):
        pass

    def kill(row: dict[str, float]) -> None:
        if row["step"] == 3:
            raise Killed

    with pytest.raises(Killed):
        train(objective(), quick(6), PHOTOS / "train", Mixture(), tmp_path / "parts", kill)
    assert not (tmp_path / "parts" / "weights.safetensors").exists()
    parts = load_file(train(objective(), quick(6), PHOTOS / "train", Mixture(), tmp_path / "parts", lambda _: None))
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=0, atol=0)
    rows = [json.loads(line) for line in (tmp_path / "parts" / "log.jsonl").read_text().splitlines()]
    assert {"loss", "psnr_0", "psnr_1", "eta_s"} <= rows[-1].keys()


def test_the_losses_can_be_learned() -> None:
    """On one batch of real photographs, restored pictures, routing and quality all get better."""
    patches = DegradedPatches(list_pictures(PHOTOS / "train"), Mixture(), 32, 8, seed=1)
    batch = Batch(*torch.utils.data.default_collate([patches[i] for i in range(8)]))
    learner = objective(unroll=(1.0,), floor=1e-3)
    optimizer = torch.optim.AdamW(learner.parameters(), 2e-3)
    history: list[dict[str, float]] = []
    for step in range(80):
        torch.manual_seed(step)
        losses = learner(batch)
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        history.append({name: float(value.detach()) for name, value in losses.items()})
    for name in ("image", "routing", "quality"):
        assert history[-1][name] < 0.8 * history[0][name], name


def test_a_minutes_limit_ends_the_run(tmp_path: Path) -> None:
    rows: list[dict[str, float]] = []
    train(objective(), quick(1_000_000, minutes=0.03), PHOTOS / "train", Mixture(), tmp_path, rows.append)
    assert rows[-1]["elapsed_s"] < 10


def test_a_teacher_is_learned_from_and_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    teacher = SIPLPromptIR(TINY)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    rows: list[dict[str, float]] = []
    taught = objective(teacher, teacher_share=0.5)
    train(taught, quick(3), PHOTOS / "train", Mixture(), tmp_path, rows.append)
    assert rows[-1]["teacher"] > 0
    assert rows[-1]["tokens"] > 0
    assert not any(name.startswith("_teacher") for name in taught.state_dict())
    for name, value in teacher.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_the_privileged_teacher_trains_and_repeats(tmp_path: Path) -> None:
    torch.manual_seed(0)
    teacher = SIPLPromptIR(TINY)
    weights = train(PrivilegedObjective(teacher), quick(4), PHOTOS / "train", Mixture(), tmp_path, lambda _: None)
    teacher.load_state_dict(load_file(weights))
    picture = torch.rand(1, 3, 32, 48)
    with torch.no_grad():
        plain = teacher(picture)
        guided = teacher(picture, teacher.encode(plain))
    assert plain.shape == guided.shape == picture.shape
    assert not torch.equal(plain, guided)


def test_batch_routing_is_the_runtime_routing() -> None:
    routing = Routing()
    granularity, logits = torch.linspace(-6, 1, 12), torch.randn(12, len(routing.leaves))
    batch = route_batch(routing, granularity, logits.sigmoid())
    for row in range(12):
        single = route(routing, float(granularity[row]), [float(z) for z in logits[row]])
        torch.testing.assert_close(batch[row], torch.tensor(list(single.values())), rtol=1e-4, atol=1e-6)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    student = Student(SIZES["nano"])
    save_weights(student, "student", student.config.model_dump(mode="json"), tmp_path / "s.safetensors")
    assert load_student(tmp_path / "s.safetensors").config == student.config
    with pytest.raises(InputError, match="holds student"):
        load_teacher(tmp_path / "s.safetensors")
    save_weights(student, "student", SIZES["small"].model_dump(mode="json"), tmp_path / "wrong.safetensors")
    with pytest.raises(InputError, match=r"does not fit Student: .*first "):
        load_student(tmp_path / "wrong.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(InputError, match="not a safetensors file"):
        load_student(tmp_path / "text.safetensors")
