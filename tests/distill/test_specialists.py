"""Specialists: a refiner of its own for a leaf, joined to the student whose encoder it reads."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from burnish.cli.recipe import DistillSection
from burnish.cli.training import train_section
from burnish.distill.experts import add_expert
from burnish.distill.methods import methods
from burnish.distill.recipe import Schedule
from burnish.distill.specialists import add_specialist, without_specialists
from burnish.distill.student import SIZES, Student
from burnish.distill.weights import Trained, read_student, save_student
from burnish.runtime.bundle import Provenance
from burnish.runtime.errors import InputError
from rich.console import Console
from shared import PHOTOS


@pytest.fixture
def shared() -> Trained:
    torch.manual_seed(0)
    return Trained(Student(SIZES["nano"]).eval(), provenance=Provenance(commands=("first",), licence="CC0-1.0"))


@pytest.fixture
def rain(shared: Trained) -> Trained:
    """Trained with the same encoder: another refiner, and another opinion of what is there."""
    student = copy.deepcopy(shared.student)
    student.refiner.load_state_dict(Student(SIZES["nano"]).refiner.state_dict())
    with torch.no_grad():
        student.encoder.head.output.bias.add_(1)
    return Trained(student, provenance=Provenance(commands=("first", "rain alone"), licence="CC0-1.0"))


def test_a_specialist_is_the_others_refiner(shared: Trained, rain: Trained) -> None:
    joined = add_specialist(shared, "rain", rain)
    assert joined.student.config.specialists == joined.routing.specialists == ("rain",)
    for name, method in methods(joined.student).items():
        expected = methods(rain.student)["refine"] if name == "refine_rain" else methods(shared.student)[name]
        for value, wanted in zip(method.parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(value, wanted, rtol=0, atol=0)
    assert joined.provenance.commands == ("first", "rain alone")
    alone = without_specialists(joined)
    assert alone.student.state_dict().keys() == shared.student.state_dict().keys()
    assert alone.routing == shared.routing


def test_another_encoder_is_refused(shared: Trained, rain: Trained) -> None:
    with torch.no_grad():
        rain.student.encoder.level1[0].get_parameter("conv1.weight").mul_(1.001)
    with pytest.raises(InputError, match=r"another encoder .* frozen: \[encoder\]"):
        add_specialist(shared, "rain", rain)
    other = Trained(Student(SIZES["small"]))
    with pytest.raises(InputError, match="another encoder"):
        add_specialist(shared, "rain", other)


def test_what_nothing_is_degraded_by_is_refused(shared: Trained, rain: Trained) -> None:
    with pytest.raises(InputError, match="no specialist: unknown leaf 'fog'"):
        add_specialist(shared, "fog", rain)


def test_an_added_leaf_leaves_specialists_what_they_are(shared: Trained, rain: Trained) -> None:
    joined = add_specialist(shared, "rain", rain)
    grown = add_expert(joined, "fog", "weather")
    picture = torch.rand(1, 3, 32, 32)
    gates = torch.rand(1, len(joined.student.config.experts), 1, 1)
    at = grown.routing.experts.index("fog")
    wider = torch.cat([gates[:, :at], torch.ones(1, 1, 1, 1), gates[:, at:]], 1)
    restored: list[torch.Tensor] = []
    with torch.no_grad():
        for student, opened in ((joined.student, gates), (grown.student.eval(), wider)):
            *features, tokens, _ = methods(student)["encode"](picture)
            inputs = (picture, *features, *features[1:], tokens, opened.repeat_interleave(student.config.rank, 1))
            restored += methods(student)["refine_rain"](*inputs)
    torch.testing.assert_close(restored[0], restored[2])
    torch.testing.assert_close(restored[1], restored[3])


def test_a_recipe_joins_specialists(shared: Trained, rain: Trained, tmp_path: Path) -> None:
    save_student(shared, tmp_path / "shared.safetensors")
    save_student(rain, tmp_path / "rain.safetensors")
    section = DistillSection(
        size="nano",
        photos=".",
        start="shared.safetensors",
        specialists={"rain": "rain.safetensors"},
        schedule=Schedule(steps=0),
    )

    def join(out: str, section: DistillSection) -> Trained:
        return read_student(
            train_section(section, None, tmp_path / "join.yaml", PHOTOS / "dev", tmp_path / out, Console())
        )

    joined = join("joined", section)
    assert joined.routing.specialists == ("rain",)
    assert joined.provenance.commands == ("first", "burnish distill join.yaml", "rain alone")
    # What goes on training the encoder has none: they would read another one's features.
    again = section.model_copy(update={"start": "joined/student.safetensors", "specialists": {}})
    assert join("again", again).student.config.specialists == ()
    save_student(Trained(Student(SIZES["nano"])), tmp_path / "rain.safetensors")
    with pytest.raises(InputError, match="another encoder"):
        join("refused", section)


def test_specialists_of_an_encoder_that_trains_are_refused() -> None:
    with pytest.raises(ValueError, match="read the encoder as it was"):
        DistillSection(photos=".", specialists={"rain": "rain.safetensors"})
