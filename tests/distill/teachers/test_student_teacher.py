"""A larger student as a teacher: any student's file, and the one that comes with burnish."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from burnish.cli.main import app
from burnish.device_tests.metrics import psnr
from burnish.device_tests.protocol import degraded, load_protocol, read_clean
from burnish.device_tests.trajectory import run_teacher
from burnish.distill.student import Student
from burnish.distill.weights import Trained, load_teacher, read_student, save_student
from burnish.runtime.bundle import EMBEDDED, EMBEDDED_TEACHER, Provenance, Teacher
from burnish.runtime.errors import InputError
from burnish.runtime.routing import Routing
from shared import PHOTOS, refine
from typer.testing import CliRunner


def test_a_students_file_teaches_as_it_restores(student: Student, tmp_path: Path) -> None:
    save_student(Trained(student, Routing(top=6), Provenance(licence="CC0-1.0")), tmp_path / "student.safetensors")
    trained = read_student(tmp_path / "student.safetensors")
    teacher = load_teacher(tmp_path / "student.safetensors")
    picture = torch.rand(2, 3, 32, 40, generator=torch.Generator().manual_seed(0))
    rounds = teacher.restore(picture, 2)
    both = (refine(trained, view, 2) for view in (picture, picture.flip(3)))
    for step, straight, mirrored in zip(rounds, *both, strict=True):
        torch.testing.assert_close(step.picture, (straight + mirrored.flip(3)) / 2)
        assert step.features is not None
        assert step.features.shape[:2] == (2, student.config.token_width)
    assert (teacher.card.licence, teacher.card.commercial_use) == ("CC0-1.0", True)


def test_what_taught_the_teacher_binds_its_students(student: Student, tmp_path: Path) -> None:
    forbids = Teacher(name="promptir", licence="non-commercial", commercial_use=False)
    save_student(Trained(student, provenance=Provenance(teachers=(forbids,))), tmp_path / "student.safetensors")
    assert not load_teacher(tmp_path / "student.safetensors").card.commercial_use


def test_a_students_file_is_no_other_teacher(student: Student, tmp_path: Path) -> None:
    save_student(Trained(student), tmp_path / "student.safetensors")
    with pytest.raises(InputError, match="expected the teacher promptir"):
        load_teacher(tmp_path / "student.safetensors", "promptir")


def test_the_embedded_teacher_restores_better_than_its_student() -> None:
    """The mean over a picture the student never saw under a few conditions of the protocol; on all: docs/status.md."""
    teacher, small = load_teacher(EMBEDDED_TEACHER), read_student(EMBEDDED / "student.safetensors")
    conditions = {condition.name: condition for condition in load_protocol().conditions}
    path = PHOTOS / "eval" / "kodim20.png"
    clean, gains = read_clean(path), []
    for name in ("noise-25", "jpeg-heavy", "rain-heavy", "defocus-blur-heavy"):
        worse = degraded(conditions[name], path.name, clean)[:384, :384]
        picture = torch.from_numpy(np.ascontiguousarray(worse.transpose(2, 0, 1)[None]))
        taught = refine(small, picture, 1)[0][0].permute(1, 2, 0).numpy()
        gains.append(
            psnr(run_teacher(teacher, worse, 1).pictures[0], clean[:384, :384]) - psnr(taught, clean[:384, :384])
        )
    assert np.mean(gains) > 0.2, gains


def test_the_command_knows_its_weights(tmp_path: Path) -> None:
    from PIL import Image

    Image.open(PHOTOS / "eval" / "kodim20.png").crop((0, 0, 96, 64)).save(tmp_path / "in.png")
    done = CliRunner().invoke(app, ["teacher", "run", "sipl-student", str(tmp_path / "in.png"), str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert {"round_0.png", "round_1.png", "round_2.png"} <= {path.name for path in (tmp_path / "out").iterdir()}
    assert len(json.loads((tmp_path / "out" / "meta.json").read_text())["quality"]) == 2
