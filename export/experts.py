"""Packs of experts: other experts for the same student, exchanged at run time without exchanging the program."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, fx

from ..distill.student import ExpertBlock, Student
from ..distill.weights import halved, load_student, read_tensors
from ..quantize.saturation import Reach, Unrounded, beyond
from ..runtime.errors import InputError
from .agreement import restored_by_methods
from .context import Context
from .expert_pack import KIND, expert_tensors, unpack


def read_packs(student: Student, given: list[str]) -> dict[str, Student]:
    """Packs from NAME=FILE, a student that differs from `student` in nothing but its experts, or a pack written of one.

    Raises InputError naming what differs.
    """
    packs: dict[str, Student] = {}
    for entry in given:
        name, separator, file = entry.partition("=")
        if not separator or not name.isidentifier() or name in packs:
            raise InputError(f"{entry!r} is no pack of experts; expected NAME=FILE.safetensors, every name once")
        packs[name] = read_pack(student, Path(file))
    return packs


def read_pack(student: Student, file: Path) -> Student:
    """The student with the experts of a file that `read_packs` takes."""
    metadata, tensors = read_tensors(file)
    if metadata.get("kind") == KIND:
        return unpack(student, metadata, tensors, file)
    other = load_student(file)
    if other.config != student.config:
        raise InputError(f"{file} has other sizes or experts than the student; a pack must have the same")
    own, theirs = student.state_dict(), other.state_dict()
    for key in own.keys() - expert_tensors(student).keys():
        if not torch.equal(halved(own[key]), halved(theirs[key])):
            raise InputError(f"{file} differs from the student in {key}; a pack may differ in its experts alone")
    return other


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


def reaches(context: Context, graphs: Mapping[str, fx.GraphModule]) -> dict[str, Reach]:
    """What refine's quantizers are given along the context's trajectories, by their nodes' names."""
    refine = Unrounded(graphs["refine"], by_channel="lora_a")
    restored_by_methods({"encode": graphs["encode"], "refine": refine}, context)
    return refine.reaches


def fit_ranks(pack: Student, own: Mapping[str, Reach], theirs: Mapping[str, Reach]) -> Student:
    """The pack with ranks that leave a range made smaller in A and as much larger in B, which computes the same."""
    fitted = copy.deepcopy(pack)
    factors: dict[str, Tensor] = {}
    for _, reach in beyond(own, theirs):
        if reach.channels is not None:
            bounds = torch.tensor([[reach.lowest], [reach.highest]])
            fits = torch.where(reach.channels.abs() > bounds.abs(), bounds / reach.channels, 1.0).abs().amin(0)
            layer = reach.layer.rpartition(".")[0]
            factors[layer] = torch.minimum(factors.get(layer, fits), fits)
    for layer, factor in factors.items():
        block = fitted.get_submodule(layer)
        assert isinstance(block, ExpertBlock)
        assert block.lora_a.bias is not None
        with torch.no_grad():
            block.lora_a.weight.mul_(factor.reshape(-1, 1, 1, 1))
            block.lora_a.bias.mul_(factor)
            block.lora_b.weight.div_(factor.reshape(1, -1, 1, 1))
    return fitted


def refuse_beyond(own: Mapping[str, Reach], theirs: Mapping[str, Reach]) -> None:
    """Raise InputError with the figures where a pack's activations leave the ranges that the program was calibrated for."""
    leaving = beyond(own, theirs)
    if leaving:
        mine, worst = leaving[0]
        more = f", and {len(leaving) - 1} others" if len(leaving) > 1 else ""
        raise InputError(
            f"its activations leave the program's ranges: {worst.operation} reaches {worst.least:.2f} to {worst.most:.2f}, "
            f"{worst.share:.1%} of it outside {worst.lowest:.2f} to {worst.highest:.2f} (with the student's own experts "
            f"{mine.share:.1%}){more}; train the pack closer to the student or make it a student of its own"
        )
