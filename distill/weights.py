"""Weights on disk: safetensors whose metadata says which model they are."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..runtime.bundle import Provenance
from ..runtime.errors import InputError
from ..runtime.files import replace
from ..runtime.routing import Routing
from .student import Student, StudentConfig
from .teachers.protocol import Size, Teacher
from .teachers.registry import TEACHERS, create, find
from .teachers.student import StudentTeacher

# What a file holds weights as. int8: of large layers codes, of which neighbours in a filter share a reach, and a weight is
# its code times that / 127 (as in GGML's Q8_0); small layers weigh little and are felt more, so that they have 16 bits.
Stored = Literal["fp32", "fp16", "int8"]
LARGE, LARGEST_CODE = 65536, 127
# How many neighbours share one: the first that divides the filter.
BLOCKS = (64, 32)
REACH = ".reach"
# The teacher that a student's file makes.
STUDENT_TEACHER = "sipl-student"


class Trained(NamedTuple):
    """A student with what it was trained with: its tree and routing constants, and where it comes from."""

    student: Student
    routing: Routing = Routing()
    provenance: Provenance = Provenance()


def save_student(trained: Trained, path: Path, stored: Stored = "fp16") -> None:
    """Write a student's weights and what is needed to build, route and attribute it again."""
    metadata = {
        "kind": "student",
        "config": trained.student.config.model_dump_json(),
        "routing": trained.routing.model_dump_json(),
        "provenance": trained.provenance.model_dump_json(),
    }
    _save(trained.student, metadata, path, stored)


def save_teacher(teacher: Teacher, size: Size, path: Path, stored: Stored = "fp16") -> None:
    """Write a teacher's weights; tensors with values too large for 16 bits keep 32."""
    settings = teacher.settings.model_dump_json()
    _save(teacher, {"kind": teacher.name, "size": size, "settings": settings}, path, stored)


@torch.no_grad()
def average(runs: Sequence[Trained]) -> Trained:
    """The mean of the weights of runs that continued one another or one start, which is often better than any.

    Izmailov et al., UAI 2018; Wortsman et al., ICML 2022. A run given twice counts twice. Routing is the last one's; a
    command or data of several runs is named once. Raises InputError for students of different shapes.
    """
    *_, last = runs
    if any(run.student.config != last.student.config for run in runs):
        raise InputError("students of different shapes cannot be averaged; expected runs that continue one another")
    states = [run.student.state_dict() for run in runs]
    provenance = joined_provenance(runs, last.provenance.licence)
    mean = Student(last.student.config).eval()
    mean.load_state_dict({name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]})
    commands = (*provenance.commands, f"mean of the weights of {len(runs)}")
    return Trained(mean, last.routing, provenance.model_copy(update={"commands": commands}))


def joined_provenance(runs: Sequence[Trained], licence: str | None) -> Provenance:
    """Where weights come from that several runs went into: what they share is named once."""
    return Provenance(
        teachers=tuple(dict.fromkeys(teacher for run in runs for teacher in run.provenance.teachers)),
        data=tuple(dict.fromkeys(data for run in runs for data in run.provenance.data)),
        commands=tuple(dict.fromkeys(command for run in runs for command in run.provenance.commands)),
        licence=licence,
    )


def load_student(path: Path) -> Student:
    """Build the student a weights file describes. Raises InputError for weights of another model."""
    return read_student(path).student


def read_student(path: Path) -> Trained:
    """A student with its routing and provenance. Raises InputError for weights of another model."""
    metadata, tensors = read_tensors(path)
    kind = metadata.get("kind", "an unknown model")
    if kind != "student":
        raise InputError(f"{path} holds {kind}; expected a burnish student")
    try:
        student = Student(StudentConfig.model_validate_json(metadata.get("config", "{}")))
        routing = Routing.model_validate_json(metadata.get("routing", "{}"))
        provenance = Provenance.model_validate_json(metadata.get("provenance", "{}"))
    except ValidationError as error:
        raise InputError(f"{path}: {error.errors()[0]['msg']}; the file is of another burnish version") from None
    _fill(student, tensors, path)
    return Trained(student.eval(), routing, provenance)


def load_teacher(path: Path, name: str | None = None, base: Path | None = None) -> Teacher:
    """A trained teacher: our own file, a student's, or the authors' checkpoint of the teacher `name` on its pretrained `base`.

    Raises InputError for weights of another model.
    """
    if path.suffix != ".safetensors":
        if name is None:
            raise InputError(f"{path} does not say which teacher it holds; name one of {', '.join(TEACHERS)}")
        needed = find(name).card.base
        if needed is not None and base is None:
            raise InputError(f"{path} can hold but a part of {name}; name the folder of {needed} with --base")
        content = _unpickle(path)
        teacher = create(name)
        if base is not None:
            teacher.load_base(base)
        teacher.load_published(content)
        return teacher.eval()
    if base is not None:
        raise InputError(f"{path} holds all of its model; leave out --base {base}")
    metadata, tensors = read_tensors(path)
    kind = metadata.get("kind", "an unknown model")
    if kind == "student" and name in (None, STUDENT_TEACHER):
        return _student_teacher(read_student(path))
    if kind not in TEACHERS or name not in (None, kind):
        raise InputError(f"{path} holds {kind}; expected the teacher {name or 'of one of ' + ', '.join(TEACHERS)}")
    teacher = create(kind, "tiny" if metadata.get("size") == "tiny" else "published")
    try:
        teacher.configure(json.loads(metadata.get("settings", "{}")))
    except (ValueError, TypeError):
        raise InputError(f"{path}: its settings are damaged; expected burnish weights") from None
    _fill(teacher, tensors, path)
    return teacher.eval()


def _student_teacher(trained: Trained) -> StudentTeacher:
    """A student as a teacher; what it was taught by and its licence bind what it teaches."""
    teacher, provenance = StudentTeacher(trained.student, trained.routing), trained.provenance
    allowed = all(origin.commercial_use for origin in provenance.teachers)
    terms = {"licence": provenance.licence or "not stated", "commercial_use": allowed}
    teacher.name, teacher.card = STUDENT_TEACHER, find(STUDENT_TEACHER).card.model_copy(update=terms)
    return teacher.eval()


def _save(module: nn.Module, metadata: dict[str, str], path: Path, stored: Stored) -> None:
    tensors = {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}
    if stored == "int8":
        for name, value in list(tensors.items()):
            block = next((block for block in BLOCKS if value.numel() >= LARGE and value[0].numel() % block == 0), None)
            if value.is_floating_point() and block is not None:
                blocks = value.reshape(-1, block)
                reach = blocks.abs().amax(1).half()
                if reach.isfinite().all():
                    tensors |= {name: to_codes(blocks, reach).view_as(value), name + REACH: reach}
    if stored != "fp32":
        tensors = {name: halved(value) for name, value in tensors.items()}

    def write(beside: Path) -> None:
        save_file(tensors, beside, metadata)
        _sort_metadata(beside)

    replace(path, write)


def _sort_metadata(path: Path) -> None:
    """Put a file's metadata in order: safetensors writes them as its hashing falls out, differently in every process."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header: dict[str, Any] = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode().ljust(length)
        if len(text) == length:  # as it is, but for escapes that two libraries write differently
            file.seek(8)
            file.write(text)


def halved(value: Tensor) -> Tensor:
    """A tensor as files hold it: 16-bit floats, but where a value is too large for them."""
    if not value.is_floating_point():
        return value
    half = value.half()
    return half if half.isfinite().all() else value


def to_codes(rows: Tensor, reach: Tensor) -> Tensor:
    """int8 codes of rows (N, M), of which no weight is larger than the row's `reach` (N,)."""
    scales = reach.float().clamp_min(1e-9)[:, None] / LARGEST_CODE
    return (rows / scales).round().clamp(-LARGEST_CODE, LARGEST_CODE).to(torch.int8)


def _decoded(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Weights where a file has codes, as 16 bits hold them, so that files and programs made of them have the same numbers.

    Raises InputError for codes without a reach that fits.
    """
    weights = dict(tensors)
    for name in [name for name, value in tensors.items() if value.dtype == torch.int8]:
        codes, reach = tensors[name], weights.pop(name + REACH, None)
        shapes = [(codes.numel() / block,) for block in BLOCKS]
        if reach is None or not reach.is_floating_point() or reach.shape not in shapes:
            raise InputError(f"{path}: the codes of {name} have no reach that fits; expected burnish weights")
        weights[name] = (codes.reshape(len(reach), -1) / LARGEST_CODE * reach[:, None]).view_as(codes).half().float()
    return weights


def read_tensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a weights file, 16-bit floats widened and codes as they are. Raises InputError."""
    if not path.is_file():
        raise InputError(f"{path} is not a file; expected weights in safetensors format")
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata: dict[str, str] = file.metadata() or {}
    except (SafetensorError, ValueError, OSError) as error:
        raise InputError(f"{path} is not a safetensors file ({str(error)[:80]}); expected burnish weights") from None
    return metadata, {name: t.float() if t.dtype == torch.float16 else t for name, t in tensors.items()}


def _unpickle(path: Path) -> dict[str, Any]:
    """A checkpoint of torch's format, tensors and plain containers alone."""
    if not path.is_file():
        raise InputError(f"{path} is not a file; expected a checkpoint")
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError):
        raise InputError(
            f"{path} cannot be read as tensors alone; expected a checkpoint that torch.save wrote"
        ) from None
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}; expected a dictionary of tensors")
    return content


def _fill(module: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    tensors = _decoded(tensors, path)
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
