"""Averaged weights: the mean of runs, which carries what went into each."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from burnish.cli.recipe import DistillSection
from burnish.cli.training import train_section
from burnish.distill.recipe import Schedule
from burnish.distill.student import SIZES, Student
from burnish.distill.weights import Trained, average, halved, read_student, save_student
from burnish.runtime.bundle import Provenance, Teacher
from burnish.runtime.errors import InputError
from burnish.runtime.routing import Routing
from rich.console import Console
from shared import PHOTOS


def trained(seed: int, *commands: str, top: int = 4, teachers: tuple[Teacher, ...] = ()) -> Trained:
    torch.manual_seed(seed)
    provenance = Provenance(teachers=teachers, data=("photos",), commands=commands, licence="CC0-1.0")
    return Trained(Student(SIZES["nano"]), Routing(top=top), provenance)


def test_the_mean_of_both_with_the_routing_of_the_last() -> None:
    one, other = trained(1, "first"), trained(2, "first", "second", top=6)
    mean = average([one, other])
    for name, value in mean.student.state_dict().items():
        expected = (one.student.state_dict()[name] + other.student.state_dict()[name]) / 2
        torch.testing.assert_close(value, expected)
    assert mean.routing.top == 6
    assert not mean.student.training


def test_where_each_comes_from_is_kept_once() -> None:
    teacher = Teacher(name="a", licence="research", commercial_use=False)
    found = average([trained(1, "first", teachers=(teacher,)), trained(2, "first", "second")]).provenance
    assert found.teachers == (teacher,)
    assert found.data == ("photos",)
    assert found.commands[:2] == ("first", "second")
    assert found.commands[2:] == ("mean of the weights of 2",)
    assert found.licence == "CC0-1.0"


def test_other_shapes_are_refused() -> None:
    small = trained(1, "first")._replace(student=Student(SIZES["small"]))
    with pytest.raises(InputError, match="different shapes"):
        average([small, trained(2, "first")])


def test_a_recipe_starts_from_the_mean_of_several(tmp_path: Path) -> None:
    for seed in (1, 2):
        save_student(trained(seed, f"run {seed}"), tmp_path / f"{seed}.safetensors")
    one, other = (read_student(tmp_path / f"{seed}.safetensors") for seed in (1, 2))
    section = DistillSection(
        photos="-", size="nano", start=("1.safetensors", "2.safetensors", "1.safetensors"), schedule=Schedule(steps=0)
    )
    weights = train_section(
        section, None, tmp_path / "mean.yaml", PHOTOS / "train", tmp_path / "run", Console(quiet=True)
    )
    found, expected = read_student(weights), average([one, other, one])
    for name, value in found.student.state_dict().items():
        torch.testing.assert_close(value, halved(expected.student.state_dict()[name]).float())
    assert found.provenance.commands == (*expected.provenance.commands, "burnish distill mean.yaml")
