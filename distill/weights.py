"""Weights on disk: safetensors whose metadata says which model they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..runtime.errors import InputError
from ..runtime.pictures import replace
from .student import Student, StudentConfig
from .teachers.sipl import SIPL_PROMPTIR_S, SIPLPromptIR


def save_weights(module: nn.Module, kind: str, metadata: dict[str, Any], path: Path, *, half: bool = False) -> None:
    """Write a module's weights and what is needed to build it again. `half` stores 16-bit floats."""
    tensors = {
        name: (value.half() if half else value).detach().cpu().contiguous()
        for name, value in module.state_dict().items()
    }
    replace(path, lambda beside: save_file(tensors, beside, {"kind": kind, "config": json.dumps(metadata)}))


def read_weights(path: Path) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """Kind, metadata and float32 tensors of a weights file. Raises InputError."""
    if not path.is_file():
        raise InputError(f"{path} is not a file; expected weights in safetensors format")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        return metadata.get("kind", ""), json.loads(metadata.get("config", "{}")), tensors
    except (SafetensorError, ValueError, OSError) as error:
        raise InputError(f"{path} is not a safetensors file ({str(error)[:80]}); expected burnish weights") from None


def load_student(path: Path) -> Student:
    """Build the student a weights file describes. Raises InputError for weights of another model."""
    kind, config, tensors = read_weights(path)
    if kind != "student":
        raise InputError(f"{path} holds {kind or 'an unknown model'}; expected a burnish student")
    try:
        student = Student(StudentConfig.model_validate(config))
    except ValidationError as error:
        raise InputError(f"{path}: {error.errors()[0]['msg']}; the file is of another burnish version") from None
    _fill(student, tensors, path)
    return student.eval()


def load_teacher(path: Path) -> SIPLPromptIR:
    """Build the teacher a weights file describes. Raises InputError for weights of another model."""
    kind, _, tensors = read_weights(path)
    if kind != "sipl-promptir-s":
        raise InputError(f"{path} holds {kind or 'an unknown model'}; expected the teacher sipl-promptir-s")
    teacher = SIPLPromptIR(SIPL_PROMPTIR_S)
    _fill(teacher, tensors, path)
    return teacher.eval()


def _fill(module: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    wanted = {name: value.shape for name, value in module.state_dict().items()}
    missing = [name for name in wanted if name not in tensors]
    unexpected = [name for name in tensors if name not in wanted]
    wrong = [name for name in wanted if name in tensors and tensors[name].shape != wanted[name]]
    if missing or unexpected or wrong:
        parts = [
            f"{len(names)} {label}, first {names[0]}"
            for label, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", wrong))
            if names
        ]
        raise InputError(f"{path} does not fit {type(module).__name__}: {'; '.join(parts)}")
    with torch.no_grad():
        module.load_state_dict(tensors)
