"""Leaves' logits fitted again at the size of use: darkness is told better, and nothing else of the student moves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from burnish.cli.recipe import DistillSection
from burnish.cli.training import train_section
from burnish.distill.data import DegradedPatches, Mixture, list_pictures
from burnish.distill.detection import Detection, fit_detection
from burnish.distill.recipe import Schedule
from burnish.distill.specialists import without_specialists
from burnish.distill.student import SIZES, Student
from burnish.distill.weights import halved, read_student
from burnish.runtime.bundle import embedded
from burnish.runtime.errors import InputError
from burnish.runtime.tree import LEAVES
from pydantic import ValidationError
from rich.console import Console
from shared import PHOTOS

DARK = Mixture(members=(0.4, 0.6), leaves={"low_light": 1.0, "noise": 1.0})
PLACE = 2 + LEAVES.index("low_light")


def told(student: Student, seed: int) -> float:
    """How often a held-out look at a dark picture has a larger logit of darkness than one at another."""
    scenes = DegradedPatches(list_pictures(PHOTOS / "dev"), DARK, 64, 48, seed)
    seen = [scenes.scene(number) for number in range(48)]
    with torch.no_grad():
        said = student.encode(torch.stack([torch.from_numpy(scene.look) for scene in seen])).assessment[:, PLACE]
    severity = torch.tensor([float(scene.severities[PLACE - 2]) for scene in seen])
    return float((said[severity > 0.3, None] > said[None, severity == 0]).float().mean())


def test_an_untrained_student_learns_to_tell_darkness_and_nothing_else_moves() -> None:
    torch.manual_seed(0)
    student = Student(SIZES["nano"]).eval()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    assert told(student, 1) < 0.7
    counts: list[int] = []
    detection = Detection(leaves=("low_light",), pictures=60, tile=64)
    fit_detection(student, PHOTOS / "train", DARK, detection, 0, counts.append)
    assert counts == list(range(1, 61))
    assert told(student, 1) > 0.85
    for name, value in student.state_dict().items():
        rows = torch.ones(len(value), dtype=torch.bool)
        if name.startswith("encoder.head.output"):
            rows[PLACE] = False
            assert not torch.equal(value[PLACE], before[name][PLACE])
        assert torch.equal(value[rows], before[name][rows]), name


def test_what_a_picture_made_small_has_lost_is_fitted_on_tiles() -> None:
    """Looks at noisy pictures, which show no noise, would teach to miss it."""
    noisy = Mixture(members=(0.5, 0.5), leaves={"noise": 1.0})
    place = 2 + LEAVES.index("noise")
    student = read_student(embedded("nano") / "student.safetensors").student.eval()
    with torch.no_grad():
        student.encoder.head.output.weight[place] = 0
    fit_detection(
        student, PHOTOS / "train", noisy, Detection(leaves=("noise",), pictures=60, tile=64), 0, lambda _: None
    )
    tiles = DegradedPatches(list_pictures(PHOTOS / "dev"), noisy, 64, 40, 1)
    batch = [tiles[index] for index in range(40)]
    with torch.no_grad():
        logits = student.encode(torch.stack([sample.degraded for sample in batch])).assessment[:, place]
    severity = torch.stack([sample.severities for sample in batch])[:, place - 2]
    assert (logits[severity > 0.3] > 0).float().mean() > 0.9
    assert (logits[severity == 0] > 0).float().mean() < 0.2


def test_an_idle_unit_tells_noise_where_it_is_alone_and_nothing_else_moves() -> None:
    mixture = Mixture(members=(0.4, 0.5, 0.1), leaves={"noise": 2.0, "haze": 1.0})
    place, unit = 2 + LEAVES.index("noise"), 5
    student = read_student(embedded("nano") / "student.safetensors").student.eval()
    head = student.encoder.head
    with torch.no_grad():
        head.output.weight[place] = 0  # what it knew of noise
        head.hidden.bias[unit] = -1e4
        head.output.weight[:, unit] = 7.0
    before = {name: value.clone() for name, value in student.state_dict().items()}
    tiles = DegradedPatches(list_pictures(PHOTOS / "dev"), mixture, 64, 60, 1)
    batch = [tiles[index] for index in range(60)]
    severity = torch.stack([sample.severities for sample in batch])
    pictures = torch.stack([sample.degraded for sample in batch])
    with torch.no_grad():
        was = student.encode(pictures).assessment
        fit_detection(
            student, PHOTOS / "train", mixture, Detection(alone=("noise",), pictures=400, tile=64), 0, lambda _: None
        )
        said = student.encode(pictures).assessment
    others = torch.arange(said.shape[1]) != place
    assert torch.equal(said[:, others], was[:, others])
    raised = (said - was)[:, place]
    noise = severity[:, place - 2]
    alone = (noise > 0.3) & ((severity > 0).sum(1) == 1)
    assert (raised >= 0).all()
    assert (raised[noise == 0] == 0).float().mean() > 0.6  # small tiles of few photographs
    assert (raised[alone, None] > raised[None, noise == 0]).float().mean() > 0.95
    for name, value in student.state_dict().items():
        moved = (value != before[name]).nonzero()
        if name.startswith("encoder.head.hidden"):
            assert moved[:, 0].unique().tolist() == [unit]
        elif name == "encoder.head.output.weight":
            assert moved[:, 1].unique().tolist() == [unit]
        else:
            assert not len(moved), name


def test_a_leaf_stays_as_high_as_it_was_where_it_is_present() -> None:
    pictures = DegradedPatches(list_pictures(PHOTOS / "train"), DARK, 64, 40, 0)
    scenes = [pictures.scene(number) for number in range(40)]
    dark = torch.stack([torch.from_numpy(scene.look) for scene in scenes if scene.severities[PLACE - 2] > 0])

    def height(student: Student) -> float:
        with torch.no_grad():
            return float(student.encode(dark).assessment[:, PLACE].mean())

    heights: dict[bool, float] = {}
    for kept in (True, False):
        student = read_student(embedded("nano") / "student.safetensors").student.eval()
        before = height(student)
        leaves = ("low_light",)
        detection = Detection(leaves=leaves, as_high=leaves if kept else (), pictures=40, tile=64)
        fit_detection(student, PHOTOS / "train", DARK, detection, 0, lambda _: None)
        heights[kept] = height(student) - before
    assert abs(heights[True]) < 0.5 < abs(heights[False]), heights


def test_no_steps_fit_what_a_student_was_and_the_same_again(tmp_path: Path) -> None:
    section = DistillSection(
        photos=str(PHOTOS / "train"),
        size="nano",
        start="embedded",
        mixture=DARK,
        schedule=Schedule(steps=0, workers=0),
        detection=Detection(leaves=("low_light",), pictures=12, tile=64),
    )
    paths = [
        train_section(
            section, None, PHOTOS.parent / "demo.yaml", PHOTOS / "train", tmp_path / name, Console(quiet=True)
        )
        for name in ("a", "b")
    ]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    after = read_student(paths[0])
    before = without_specialists(read_student(embedded("nano") / "student.safetensors"))
    assert after.routing == before.routing
    for name, value in before.student.state_dict().items():
        same = after.student.state_dict()[name] == halved(value).float()
        assert same.all() or (name.startswith("encoder.head.output") and same[torch.arange(len(value)) != PLACE].all())


def test_what_cannot_be_fitted_is_refused() -> None:
    with pytest.raises(ValidationError, match="unknown leaf 'fog'; expected some of rain"):
        Detection(leaves=("fog",))
    with pytest.raises(ValidationError, match="unknown leaf 'haze'; expected some of rain"):
        Detection(leaves=("rain",), as_high=("haze",))
    with pytest.raises(ValidationError, match="expected `leaves` or `alone`"):
        Detection()
    with pytest.raises(ValidationError, match="unknown leaf 'fog'; expected some of rain"):
        Detection(alone=("fog",))
    with pytest.raises(ValidationError, match="`detection` is of students"):
        DistillSection(model="sipl-promptir-s", photos="x", detection=Detection(leaves=("haze",)))
    detection = Detection(leaves=("haze",), pictures=3, tile=64)
    with pytest.raises(InputError, match="haze is on 0 of 6 pictures"):
        fit_detection(Student(SIZES["nano"]).eval(), PHOTOS / "train", DARK, detection, 0, lambda _: None)
    untrained = Student(SIZES["nano"]).eval()
    with torch.no_grad():
        untrained.encoder.head.output.bias.fill_(-9.0)
    detection = Detection(leaves=("low_light",), as_high=("low_light",), pictures=12, tile=64)
    with pytest.raises(InputError, match=r"low_light has logits of .* expected both above 0"):
        fit_detection(untrained, PHOTOS / "train", DARK, detection, 0, lambda _: None)
    with pytest.raises(ValidationError, match="a look tells haze: name it in `leaves`"):
        Detection(alone=("noise", "haze"))
    with pytest.raises(InputError, match="rain is alone on 0 and absent from 12 of 12 pictures"):
        fit_detection(
            untrained, PHOTOS / "train", DARK, Detection(alone=("rain",), pictures=12, tile=64), 0, lambda _: None
        )
    with torch.no_grad():
        untrained.encoder.head.hidden.bias.fill_(1e4)
    with pytest.raises(InputError, match="no idle unit for noise; leave it out of `alone`"):
        fit_detection(
            untrained, PHOTOS / "train", DARK, Detection(alone=("noise",), pictures=12, tile=64), 0, lambda _: None
        )
