"""Averaged weights: the mean of runs, which carries what went into each."""

from __future__ import annotations

import pytest
import torch
from burnish.distill.student import SIZES, Student
from burnish.distill.weights import Trained, average
from burnish.runtime.bundle import Provenance, Teacher
from burnish.runtime.errors import InputError
from burnish.runtime.routing import Routing


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
    assert "average" in found.commands[2]
    assert found.licence == "CC0-1.0"


def test_other_shapes_are_refused() -> None:
    small = trained(1, "first")._replace(student=Student(SIZES["small"]))
    with pytest.raises(InputError, match="different shapes"):
        average([small, trained(2, "first")])
