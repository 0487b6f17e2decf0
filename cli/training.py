"""`burnish distill`: what a recipe's distill section describes, trained with progress and published with its provenance."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ..runtime.bundle import EMBEDDED, Provenance, Teacher
from ..runtime.errors import InputError
from ..runtime.routing import Routing
from .recipe import EMBEDDED_WEIGHTS, DistillSection, read_recipe, resolve

if TYPE_CHECKING:
    from ..distill.data import Source
    from ..distill.recipe import Schedule
    from ..distill.training import Objective
    from ..distill.weights import Trained

# Seconds between lines of progress where there is no terminal to draw a bar on.
QUIET_SECONDS = 60.0


def distill_command(recipe_path: Path, out: Path, data: Path | None, minutes: float | None, console: Console) -> Path:
    """Train what a recipe's distill section describes; returns the weights."""
    recipe = read_recipe(recipe_path)
    section = recipe.distill
    if section is None:
        raise InputError(f"{recipe_path} has no distill section; see recipes/student-small.yaml")
    if minutes is not None:
        section = section.model_copy(update={"schedule": section.schedule.model_copy(update={"minutes": minutes})})
    return train_section(
        section, recipe.routing, recipe_path, data or resolve(recipe_path, section.photos), out, console
    )


def train_section(
    section: DistillSection, routing: Routing | None, recipe_path: Path, photos: Path, out: Path, console: Console
) -> Path:
    """Train with a progress line; resumes from `out`. `routing`: None for that of the weights the training starts from."""
    import torch

    torch.manual_seed(section.schedule.seed)
    weights = out / f"{section.model}.safetensors"
    source = _source(section, recipe_path, photos)
    if section.model != "student":
        from ..distill.teachers.registry import create
        from ..distill.weights import load_teacher, save_teacher

        start = weights_path(section.start, recipe_path)
        teacher = load_teacher(start, section.model) if start else create(section.model)
        _train(teacher.train().objective(), section.model, section.schedule, source, out, console)
        save_teacher(teacher, "published", weights)
        return weights

    from ..distill.weights import Trained, save_student

    student, found, before = _start(section, recipe_path)
    routing = routing or found
    objective, taught_by = _student_objective(student.train(), section, routing, recipe_path)
    _train(objective, section.model, section.schedule, source, out, console)
    provenance = Provenance(
        teachers=tuple(dict.fromkeys((*before.teachers, *taught_by))),
        data=tuple(dict.fromkeys((*before.data, str(section.cache or photos.name)))),
        commands=(*before.commands, f"burnish distill {recipe_path.name}"),
    )
    save_student(Trained(student, routing, provenance), weights)
    return weights


def add_expert_command(
    leaf: str, pairs: Path, parent: str, start: Path | None, schedule: Schedule, out: Path, console: Console
) -> Path:
    """`burnish distill --add-expert`: one more leaf and expert from pairs of pictures; returns the student's weights."""
    import torch

    from ..distill.distillation import DistillationObjective, Weights
    from ..distill.experts import PairsAmongOthers, add_expert, freeze_all_but
    from ..distill.weights import read_student, save_student

    torch.manual_seed(schedule.seed)  # the new rows of A are random
    grown = add_expert(read_student(start or embedded_student()), leaf, parent)
    freeze_all_but(grown.student, leaf)
    # Gates as in use but for the start, when the new one is still closed; heads other than the new leaf's are frozen.
    objective = DistillationObjective(grown.student.train(), Weights(unroll=(1.0,), true_gates=0.5), grown.routing)
    source = PairsAmongOthers(pairs, grown.routing, leaf, schedule.patch, schedule.seed)
    _train(objective, leaf, schedule, source, out, console)
    weights = out / "student.safetensors"
    commands = (*grown.provenance.commands, f"burnish distill --add-expert {leaf}")
    data = (*grown.provenance.data, pairs.name)
    save_student(
        grown._replace(provenance=grown.provenance.model_copy(update={"data": data, "commands": commands})), weights
    )
    return weights


def weights_path(name: str | None, recipe_path: Path) -> Path | None:
    """The file a recipe means by `name`: the embedded student, a path beside the recipe, or none."""
    if name is None:
        return None
    return embedded_student() if name == EMBEDDED_WEIGHTS else resolve(recipe_path, name)


def embedded_student() -> Path:
    """The full-precision student inside the embedded bundle."""
    return EMBEDDED / "student.safetensors"


def _train(
    objective: Objective[Any], what: str, schedule: Schedule, source: Source, out: Path, console: Console
) -> None:
    """Run the loop under a progress bar, or with a line a minute, and fill the model with its averaged weights."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    from safetensors.torch import load_file

    from ..distill.training import train

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[row]}"), TimeElapsedColumn())
    printed = time.monotonic()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"train {what}", total=1.0, row="")

        def show(row: dict[str, float]) -> None:
            nonlocal printed
            db = "  ".join(f"{k.removeprefix('psnr_')} {v:.2f} dB" for k, v in row.items() if k.startswith("psnr"))
            share = row["elapsed_s"] / max(row["elapsed_s"] + row["eta_s"], 1e-9)
            text = f"step {row['step']:.0f}  loss {row['loss']:.4f}  {db}  eta {row['eta_s'] / 60:.1f} min"
            bar.update(task, completed=share, row=text)
            if not console.is_terminal and time.monotonic() - printed >= QUIET_SECONDS:
                console.print(text, highlight=False)
                printed = time.monotonic()

        averaged = train(objective, schedule, source, out, show)
    objective.model.load_state_dict(load_file(averaged))


def _source(section: DistillSection, recipe_path: Path, photos: Path) -> Source:
    from ..distill.data import Photographs
    from ..distill.teachers.cache import CachedTrajectories

    schedule = section.schedule
    if section.cache is None:
        return Photographs(photos, section.mixture, schedule.patch, schedule.seed)
    return CachedTrajectories(resolve(recipe_path, section.cache), schedule.patch, schedule.seed)


def _start(section: DistillSection, recipe_path: Path) -> Trained:
    """The student to train: continued from weights, or fresh."""
    from ..distill.student import SIZES, Student
    from ..distill.weights import Trained, read_student

    path = weights_path(section.start, recipe_path)
    if path is None:
        return Trained(Student(SIZES[section.size]))
    trained = read_student(path)
    if trained.student.config.size != section.size:
        raise InputError(f"{path} is a student of size {trained.student.config.size}; the recipe says {section.size}")
    return trained


def _student_objective(
    student: Any, section: DistillSection, routing: Routing, recipe_path: Path
) -> tuple[Any, tuple[Teacher, ...]]:
    """The losses of a student, and who teaches it: a cache, a teacher asked live, or nobody."""
    from ..distill.distillation import DistillationObjective
    from ..distill.teachers.cache import read_manifest
    from ..distill.teachers.protocol import origin
    from ..distill.weights import load_teacher

    if section.cache is not None:
        manifest = read_manifest(resolve(recipe_path, section.cache))
        objective = DistillationObjective(student, section.weights, routing, feature_width=manifest.feature_width)
        return objective, (manifest.teacher,)
    path = weights_path(section.teacher, recipe_path)
    if path is None:
        return DistillationObjective(student, section.weights, routing), ()
    teacher = load_teacher(path)
    objective = DistillationObjective(student, section.weights, routing, teacher, teacher.feature_width)
    return objective, (origin(teacher.name, teacher.card),)
