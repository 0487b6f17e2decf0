"""Packs of experts: other experts for the same student, exchanged at run time without exchanging the program."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..distill.student import Student
from ..distill.weights import load_student
from ..runtime.errors import InputError
from ..runtime.files import replace

EXPERT_LAYERS = ("lora_a", "lora_b")


def expert_tensors(student: Student) -> dict[str, Tensor]:
    """Parameters of all experts, by name."""
    return {name: value for name, value in student.state_dict().items() if name.split(".")[-2] in EXPERT_LAYERS}


def read_packs(student: Student, given: list[str]) -> dict[str, Student]:
    """Packs from NAME=STUDENT.safetensors: students that differ from `student` in nothing but their experts.

    Raises InputError naming what differs.
    """
    packs: dict[str, Student] = {}
    for entry in given:
        name, separator, file = entry.partition("=")
        if not separator or not name.isidentifier() or name in packs:
            raise InputError(f"{entry!r} is no pack of experts; expected NAME=STUDENT.safetensors, every name once")
        other = load_student(Path(file))
        if other.config != student.config:
            raise InputError(f"{file} has other sizes or experts than the student; a pack must have the same")
        own, theirs = student.state_dict(), other.state_dict()
        for key in own.keys() - expert_tensors(student).keys():
            if not torch.equal(own[key], theirs[key]):
                raise InputError(f"{file} differs from the student in {key}; a pack may differ in its experts alone")
        packs[name] = other
    return packs


def write_pack(student: Student, path: Path) -> None:
    """The experts in full precision."""
    tensors = {name: value.contiguous() for name, value in expert_tensors(student).items()}
    replace(path, lambda beside: save_file(tensors, beside))


def in_scale(pack: Student, student: Student, equalised: Student) -> Student:
    """The pack with its experts in the channels' scales that quantisation gave the student.

    Equalisation multiplies every number of a layer by a positive factor that is the same whoever the experts are. Raises
    InputError where the student's own experts do not show the factor.
    """
    scaled = copy.deepcopy(pack)
    before, after, state = expert_tensors(student), expert_tensors(equalised), scaled.state_dict()
    for name, value in before.items():
        if (value == 0).any():
            raise InputError(
                f"{name} of the student has zeros, which hide the scale a pack needs; train its experts first"
            )
        state[name] *= after[name] / value
    return scaled
