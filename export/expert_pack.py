"""A pack of experts on disk: int8 with its scales, about a quarter of the bytes, for one student.

A layer's experts are rank-1 pairs side by side (UIR-LoRA, equation 6), so a row of its tensor is one pair: a row of A, then
a column of B. Each half has a scale of its own, for ranges differ from expert to expert.
"""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..distill.student import ExpertBlock, Student
from ..distill.weights import LARGEST_CODE, REACH, halved, to_codes
from ..runtime.errors import InputError
from ..runtime.files import replace

KIND = "experts"
EXPERT_LAYERS = ("lora_a", "lora_b")


def expert_tensors(student: Student) -> dict[str, Tensor]:
    """Parameters of all experts, by name; specialists keep their own."""
    shared = student.refiner.state_dict(prefix="refiner.")
    return {name: value for name, value in shared.items() if name.split(".")[-2] in EXPERT_LAYERS}


def write_pack(student: Student, path: Path) -> None:
    """Write a student's experts: `BLOCK` int8 (E·r, C_in + C_out), `BLOCK.reach` float16 (E·r, 3).

    A weight is its code times its half's reach / 127; the third reach is A's bias.
    """
    tensors: dict[str, Tensor] = {}
    for name, block in _blocks(student):
        assert block.lora_a.bias is not None
        halves = block.lora_a.weight.detach()[:, :, 0, 0], block.lora_b.weight.detach()[:, :, 0, 0].T
        reaches = [half.abs().amax(1).half() for half in halves]
        tensors[name] = torch.cat([to_codes(half, reach) for half, reach in zip(halves, reaches, strict=True)], 1)
        tensors[name + REACH] = torch.stack([*reaches, block.lora_a.bias.detach().half()], 1)
    metadata = {"kind": KIND, "student": fingerprint(student)}
    replace(path, lambda beside: save_file(tensors, beside, metadata))


def unpack(student: Student, metadata: dict[str, str], tensors: dict[str, Tensor], path: Path) -> Student:
    """The student with the experts of the pack at `path`. Raises InputError for a pack of another student."""
    if metadata.get("student") != fingerprint(student):
        raise InputError(f"{path} is a pack for another student; expected one that was written for this one")
    changed = copy.deepcopy(student)
    for name, block in _blocks(changed):
        codes, reach = tensors.get(name), tensors.get(name + REACH)
        inner, rank = block.lora_a.in_channels, block.lora_a.out_channels
        wanted = (rank, inner + block.lora_b.out_channels), (rank, 3)
        if codes is None or reach is None or (codes.shape, reach.shape) != wanted or codes.dtype != torch.int8:
            raise InputError(f"{path}: {name} is missing or of another size; write the pack again")
        assert block.lora_a.bias is not None
        with torch.no_grad():
            weights = codes / LARGEST_CODE
            block.lora_a.weight.copy_((weights[:, :inner] * reach[:, :1])[..., None, None])
            block.lora_b.weight.copy_((weights[:, inner:] * reach[:, 1:2]).T[..., None, None])
            block.lora_a.bias.copy_(reach[:, 2])
    return changed


def fingerprint(student: Student) -> str:
    """SHA-256 of all that a pack does not replace: configuration and weights, as files hold them, but for the experts."""
    digest = hashlib.sha256(student.config.model_dump_json().encode())
    state = student.state_dict()
    for name in sorted(state.keys() - expert_tensors(student).keys()):
        digest.update(name.encode() + halved(state[name]).contiguous().numpy().tobytes())
    return digest.hexdigest()


def _blocks(student: Student) -> list[tuple[str, ExpertBlock]]:
    modules = student.refiner.named_modules(prefix="refiner")
    return [(name, module) for name, module in modules if isinstance(module, ExpertBlock)]
