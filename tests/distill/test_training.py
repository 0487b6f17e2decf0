"""Training: samples by index, resuming without a trace, learning on real photographs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from burnish.cli.recipe import DistillSection
from burnish.cli.training import train_section
from burnish.distill import data
from burnish.distill.data import Batch, DegradedPatches, Mixture, Photographs, list_pictures, vary
from burnish.distill.distillation import DistillationObjective, Weights, route_batch
from burnish.distill.recipe import Schedule
from burnish.distill.student import SIZES, Student
from burnish.distill.teachers.protocol import Teacher
from burnish.distill.teachers.registry import create
from burnish.distill.training import train
from burnish.distill.weights import BLOCKS, Trained, halved, load_teacher, read_student, save_student
from burnish.runtime.bundle import EMBEDDED_TEACHER, Provenance, embedded
from burnish.runtime.bundle import Teacher as Origin
from burnish.runtime.errors import InputError
from burnish.runtime.pictures import read
from burnish.runtime.routing import Routing, route
from burnish.runtime.tiles import GRID
from burnish.runtime.tree import LEAVES
from pydantic import ValidationError
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from shared import PHOTOS

PHOTOGRAPHS = Photographs(PHOTOS / "train", Mixture(), 32, 0)


def quick(steps: int, **changes: object) -> Schedule:
    base = dict(steps=steps, batch=4, patch=32, workers=0, warmup=5, ema=0.5, log_seconds=0.0, save_seconds=0.0)
    return Schedule.model_validate(base | changes)


def objective(
    teacher: Teacher | None = None, routing: Routing | None = None, **weights: object
) -> DistillationObjective:
    torch.manual_seed(0)
    width, student = None if teacher is None else teacher.feature_width, Student(SIZES["nano"])
    return DistillationObjective(student, Weights.model_validate(weights), routing or Routing(), teacher, width)


def test_a_sample_depends_on_its_index_alone() -> None:
    photos = list_pictures(PHOTOS / "train")
    whole = DegradedPatches(photos, Mixture(), 32, 10, seed=3)
    rest = DegradedPatches(photos, Mixture(), 32, 10, seed=3, start=6)
    assert len(rest) == 4
    for offset in range(4):
        for a, b in zip(rest[offset], whole[6 + offset], strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_varied_photographs_are_photographs_in_other_light() -> None:
    clean = read(list_pictures(PHOTOS / "train")[5]).rgb[::6, ::6]
    for seed in range(8):
        other = vary(clean, np.random.default_rng(seed))
        assert 0 <= other.min() <= other.max() <= 1
        assert np.abs(clean - other).mean() > 3 / 255
        assert np.corrcoef(clean.ravel(), other.ravel())[0, 1] > 0.8


def test_varied_photographs_are_made_small_before_or_after_they_are_degraded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "SHRUNK", 1.0)
    photos, left = list_pictures(PHOTOS / "train"), []
    dark = Mixture(members=(0.0, 0.0, 1.0), leaves={"noise": 1, "low_light": 1}, varied=1.0)
    for share in (0.0, 1.0):
        monkeypatch.setattr(data, "AFTERWARDS", share)
        patches = DegradedPatches(photos, dark, 32, 24, seed=3)
        samples = [patches[index] for index in range(24)]
        assert all(sample.clean.shape == sample.degraded.shape == (3, 32, 32) for sample in samples)
        assert all((sample.degraded * 255 - (sample.degraded * 255).round()).abs().max() < 1e-3 for sample in samples)
        left.append(torch.stack([sample.degraded.diff().abs().mean() for sample in samples]).mean())
    assert left[1] < 0.8 * left[0]  # averaging takes noise away


def test_jpeg_blocks_begin_anywhere_in_some_samples() -> None:
    """As in files that were cropped and saved again; in the others at the patch's corner."""
    mixture = Mixture(members=(0.0, 1.0), leaves={"jpeg": 1})
    samples = DegradedPatches(list_pictures(PHOTOS / "train"), mixture, 128, 40, seed=2)
    begins: list[int] = []
    for sample in map(samples.__getitem__, range(40)):
        assert sample.degraded.shape == sample.clean.shape == (3, 128, 128)
        error = (sample.degraded - sample.clean).mean(0)
        steps = error.diff(dim=1).abs().mean(0)[:120].reshape(15, 8).sum(0)
        begins.append((int(steps.argmax()) + 1) % 8)
    assert 0.3 < begins.count(0) / len(begins) < 0.8, begins
    assert len(set(begins)) > 4, begins


def test_wide_samples_are_tiles_of_a_scene_with_a_look_at_all_of_it() -> None:
    """Cut on the grid, each by its index alone, though scenes are kept for several."""
    photos, mixture = list_pictures(PHOTOS / "train"), Mixture(members=(0.0, 1.0), leaves={"haze": 1}, wide=1.0)
    patches = DegradedPatches(photos, mixture, 64, 600, seed=3)
    for index in range(0, 600, 5):  # scenes come and go
        patches[index]
    last = patches[599]
    for a, b in zip(DegradedPatches(photos, mixture, 64, 600, seed=3, start=599)[0], last, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    scene = patches._scenes[599 // data.TILES + 599 % data.SCENES]
    assert all(side > 64 for side in scene.degraded.shape[:2])
    found = [
        (top, left)
        for top in range(0, scene.degraded.shape[0] - 63, GRID)
        for left in range(0, scene.degraded.shape[1] - 63, GRID)
        if np.array_equal(scene.degraded[top : top + 64, left : left + 64].transpose(2, 0, 1), last.degraded.numpy())
    ]
    assert len(found) == 1
    assert last.look.shape == (3, 64, 64)
    np.testing.assert_allclose(last.look.mean((1, 2)), scene.degraded.mean((0, 1)), atol=0.05)
    assert last.severities[LEAVES.index("haze")] > 0


def test_mild_degradations_can_be_drawn_more_often() -> None:
    drawn: list[float] = []
    for mild in (1.0, 2.0):
        mixture, rng = Mixture(members=(0.0, 1.0), mild=mild), np.random.default_rng(0)
        severities = [severity for _ in range(400) for severity in mixture.draw(rng).values()]
        assert data.MILDEST <= min(severities) < max(severities) <= 1
        drawn.append(float(np.median(severities)))
    assert drawn == pytest.approx([data.MILDEST + (1 - data.MILDEST) * half for half in (0.5, 0.25)], abs=0.05)


def test_a_frozen_part_stays_as_it_is(tmp_path: Path) -> None:
    section = DistillSection(
        photos="-", size="nano", start="embedded", frozen=("encoder",), schedule=quick(2, weight_decay=0.1)
    )
    path = train_section(section, None, tmp_path, PHOTOS / "train", tmp_path / "run", Console(quiet=True))
    before = read_student(embedded("nano") / "student.safetensors").student.state_dict()
    changed = {
        name
        for name, value in read_student(path).student.state_dict().items()
        if not value.equal(halved(before[name]).float())
    }
    assert changed
    assert {name.partition(".")[0] for name in changed} == {"refiner"}


def test_leaves_that_are_kept_learn_what_the_student_made_of_them() -> None:
    """At the start nothing is left to learn of them, however far the truth is; the others learn the truth."""
    hazy, dark = (
        Batch(*torch.utils.data.default_collate([patches[index] for index in range(4)]))
        for patches in (
            DegradedPatches(list_pictures(PHOTOS / "train"), Mixture(members=(0, 1), leaves={leaf: 1}), 32, 4, seed=2)
            for leaf in ("haze", "low_light")
        )
    )
    learner = objective(keep=("haze",), unroll=(0.0, 1.0))
    begun = [float(learner(batch)["image"].detach()) for batch in (hazy, dark)]
    assert begun[0] < 1e-3 < 0.5 < begun[1]
    with torch.no_grad():
        learner.model.refiner.correction.bias.weight.mul_(50)
    assert learner(hazy)["image"] > 0.05
    with pytest.raises(ValidationError, match="unknown leaf 'fog'; expected some of"):
        Weights(keep=("fog",))


def test_a_tile_goes_by_the_tokens_and_gates_of_its_look() -> None:
    patches = DegradedPatches(list_pictures(PHOTOS / "train"), Mixture(wide=1.0), 64, 4, seed=1)
    batch = Batch(*torch.utils.data.default_collate([patches[i] for i in range(4)]))
    alone = batch._replace(look=batch.degraded)
    learner = objective(routing=Routing(look_tokens=("haze",), likely={"haze": -1e3}), unroll=(1.0,), true_gates=0.0)
    # Silent experts and a calm start would hide both.
    with torch.no_grad():
        learner.model.refiner.attention.project.weight.mul_(30)
        learner.model.refiner.correction.bias.weight.mul_(20)
    told, asked = [], []
    learner.model.refiner.register_forward_hook(lambda _, given, __: told.append(given[3:]))
    looks = learner.model.encode(batch.look)
    for given in (batch, alone, batch._replace(look=torch.cat([batch.degraded[:2], batch.look[2:]]))):
        asked.append(float(learner(given)["image"].detach()))
    assert len(set(asked)) == 3
    torch.testing.assert_close(told[0][0], looks.tokens)
    torch.testing.assert_close(told[1][0], learner.model.encode(batch.degraded).tokens)
    torch.testing.assert_close(told[2][0], torch.cat([told[1][0][:2], told[0][0][2:]]))
    assert not torch.equal(told[0][1], told[1][1])
    for routing in (Routing(likely={"haze": -1e3}), Routing(look_tokens=("haze",), likely={"haze": 1e3})):
        told.clear()
        learner.routing = routing
        learner(batch)
        torch.testing.assert_close(told[0][0], learner.model.encode(batch.degraded).tokens)


def test_averaging_down_keeps_the_mean() -> None:
    picture = np.random.default_rng(0).random((96, 96, 3), np.float32)
    small = data.shrink(picture, 40)
    assert small.shape == (40, 40, 3)
    np.testing.assert_allclose(small.mean((0, 1)), picture.mean((0, 1)), atol=0.01)
    assert small.std() < 0.6 * picture.std()


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = load_file(train(objective(), quick(6), PHOTOGRAPHS, tmp_path / "whole", lambda _: None))

    class Killed(Exception):
        pass

    def kill(row: dict[str, float]) -> None:
        if row["step"] == 3:
            raise Killed

    with pytest.raises(Killed):
        train(objective(), quick(6), PHOTOGRAPHS, tmp_path / "parts", kill)
    assert not (tmp_path / "parts" / "weights.safetensors").exists()
    parts = load_file(train(objective(), quick(6), PHOTOGRAPHS, tmp_path / "parts", lambda _: None))
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
    train(objective(), quick(1_000_000, minutes=0.03), PHOTOGRAPHS, tmp_path, rows.append)
    assert rows[-1]["elapsed_s"] < 10


def test_a_teacher_is_learned_from_and_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    teacher = create("sipl-promptir", "tiny")
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    rows: list[dict[str, float]] = []
    taught = objective(teacher, teacher_share=0.5)
    train(taught, quick(3), PHOTOGRAPHS, tmp_path, rows.append)
    assert rows[-1]["teacher"] > 0
    assert rows[-1]["tokens"] > 0
    assert not any(name.startswith("_teacher") for name in taught.state_dict())
    for name, value in teacher.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_batch_routing_is_the_runtime_routing() -> None:
    routing = Routing()
    granularity, logits = torch.linspace(-6, 1, 12), torch.randn(12, len(routing.leaves))
    batch = route_batch(routing, granularity, logits.sigmoid())
    for row in range(12):
        single = route(routing, float(granularity[row]), [float(z) for z in logits[row]])
        torch.testing.assert_close(batch[row], torch.tensor(list(single.values())), rtol=1e-4, atol=1e-6)


def test_a_student_file_says_how_it_routes_and_where_it_comes_from(tmp_path: Path) -> None:
    student = Student(SIZES["nano"])
    origin = Provenance(teachers=(Origin(name="t", licence="none", commercial_use=False),), data=("photos",))
    save_student(Trained(student, Routing(top=2), origin), tmp_path / "s.safetensors")
    read = read_student(tmp_path / "s.safetensors")
    assert (read.routing.top, read.provenance) == (2, origin)
    for name, value in student.state_dict().items():
        torch.testing.assert_close(read.student.state_dict()[name], halved(value).float(), rtol=0, atol=0)


def test_a_file_of_codes_is_smaller_and_near(tmp_path: Path) -> None:
    student, block = Student(SIZES["small"]), BLOCKS[1]  # 64 does not divide its filters
    files = [tmp_path / f"{stored}.safetensors" for stored in ("fp16", "int8")]
    save_student(Trained(student), files[0])
    save_student(Trained(student), files[1], "int8")
    assert files[1].stat().st_size < 0.75 * files[0].stat().st_size
    read = read_student(files[1]).student.state_dict()
    for name, value in student.state_dict().items():
        if name.endswith("conv1.weight") and "level3" in name:
            error, step = ((each.reshape(-1, block).abs().amax(1)) for each in (read[name] - value, value / 127))
            assert (error <= 0.6 * step + 1e-7).all()
        elif "level3" not in name:
            torch.testing.assert_close(read[name], halved(value).float(), rtol=0, atol=0)
    save_student(read_student(files[1]), tmp_path / "again.safetensors", "int8")
    assert (tmp_path / "again.safetensors").read_bytes() == files[1].read_bytes()
    save_student(read_student(files[1]), files[0])
    halves = read_student(files[0]).student.state_dict()
    assert all(torch.equal(halves[name], value) for name, value in read.items())
    with safe_open(files[1], "pt") as file:
        metadata = file.metadata()
    for reach in (None, torch.ones(2592, 1), torch.ones(2592, dtype=torch.int32), torch.ones(())):
        tensors = load_file(files[1])
        del tensors["encoder.level3.0.conv1.weight.reach"]
        if reach is not None:
            tensors["encoder.level3.0.conv1.weight.reach"] = reach
        save_file(tensors, tmp_path / "damaged.safetensors", metadata)
        with pytest.raises(InputError, match="have no reach that fits"):
            read_student(tmp_path / "damaged.safetensors")
    with torch.no_grad():
        student.encoder.level3[0].conv1.weight[0, 0, 0, 0] = 1e5
    save_student(Trained(student), files[1], "int8")
    assert read_student(files[1]).student.encoder.level3[0].conv1.weight[0, 0, 0, 0] == 1e5


def test_the_embedded_teachers_codes_are_what_is_written_of_them(tmp_path: Path) -> None:
    save_student(read_student(EMBEDDED_TEACHER), tmp_path / "again.safetensors", "int8")
    again, embedded_file = load_file(tmp_path / "again.safetensors"), load_file(EMBEDDED_TEACHER)
    name = "refiner.level3.0.conv1.weight"
    assert embedded_file[name].numel() == BLOCKS[0] * embedded_file[f"{name}.reach"].numel()
    assert again.keys() == embedded_file.keys()
    assert all(torch.equal(again[key], value) for key, value in embedded_file.items())


def test_a_students_file_has_one_order(tmp_path: Path) -> None:
    save_student(Trained(Student(SIZES["nano"])), tmp_path / "s.safetensors")
    content = (tmp_path / "s.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert list(header["__metadata__"]) == sorted(header["__metadata__"])
    assert len(header["__metadata__"]) == 4


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    student = Student(SIZES["nano"])
    save_student(Trained(student), tmp_path / "s.safetensors")
    with pytest.raises(InputError, match="holds student"):
        load_teacher(tmp_path / "s.safetensors", "promptir")
    student.config = SIZES["small"]
    save_student(Trained(student), tmp_path / "wrong.safetensors")
    with pytest.raises(InputError, match=r"does not fit Student: .*first "):
        read_student(tmp_path / "wrong.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(InputError, match="not a safetensors file"):
        read_student(tmp_path / "text.safetensors")
