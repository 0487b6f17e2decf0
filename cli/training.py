"""`burnish distill`: what a recipe's distill section describes, trained with progress and published with its provenance."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rich.console import Console

from ..runtime.bundle import EMBEDDED_TEACHER, Provenance, Teacher, embedded, sha256
from ..runtime.errors import InputError
from ..runtime.files import replace
from ..runtime.quality import PSNR_AT_ONE, PSNR_AT_ZERO
from ..runtime.routing import Routing
from .progress import QUIET_SECONDS, counting
from .recipe import EMBEDDED_WEIGHTS, DistillSection, distill_section, read_recipe, resolve

if TYPE_CHECKING:
    from ..distill.data import Source
    from ..distill.recipe import Schedule
    from ..distill.student import Student
    from ..distill.training import Objective
    from ..distill.weights import Trained

# Says in a run's folder what is trained there, once one of the others shows that anything was.
RUN = "run.json"
TRAINED = ("checkpoint.pt", "weights.safetensors")


def distill_command(recipe_path: Path, out: Path, data: Path | None, minutes: float | None, console: Console) -> Path:
    """Train what a recipe's distill section describes; returns the weights."""
    recipe = read_recipe(recipe_path)
    section = distill_section(recipe, recipe_path)
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

        start = start_paths(section, recipe_path)
        teacher = load_teacher(start[0], section.model) if start else create(section.model)
        teacher.configure(section.settings)
        described = _described(section, recipe_path, photos)
        _train(teacher.train().objective(), section.model, section.schedule, source, out, described, console)
        save_teacher(teacher, "published", weights, section.stored)
        return weights

    from ..distill.experts import freeze_all_but
    from ..distill.specialists import add_specialist
    from ..distill.weights import Trained, read_student, save_student

    student, found, before = started = _start(section, recipe_path)
    routing = routing or found
    specialists = {leaf: read_student(path) for leaf, path in _specialist_paths(section, recipe_path).items()}
    for leaf, source_of in specialists.items():  # what does not fit is told before hours of training
        add_specialist(started, leaf, source_of)
    if section.expert is not None:
        freeze_all_but(student, section.expert)
    for part in section.frozen:
        student.get_submodule(part).requires_grad_(False)
    objective, taught_by = _student_objective(student.train(), section, routing, recipe_path)
    warn_of_licences((*before.teachers, *taught_by), console)
    described = _described(section, recipe_path, photos) | {"routing": routing.model_dump(mode="json")}
    data = _data_name(section, recipe_path, photos)
    _train(objective, section.model, section.schedule, source, out, described, console)
    if section.detection is not None:
        _fit_detection(student, section, photos, console)
    provenance = Provenance(
        teachers=tuple(dict.fromkeys((*before.teachers, *taught_by))),
        data=tuple(dict.fromkeys((*before.data, data))),
        commands=(*before.commands, f"burnish distill {recipe_path.name}"),
        licence=section.licence or before.licence,
    )
    trained = Trained(student, routing, provenance)
    for leaf, source_of in specialists.items():
        trained = add_specialist(trained, leaf, source_of)
    save_student(trained, weights, section.stored)
    return weights


def add_expert_command(
    leaf: str, pairs: Path, parent: str, start: Path | None, schedule: Schedule, out: Path, console: Console
) -> Path:
    """`burnish distill --add-expert`: one more leaf and expert from pairs of pictures; returns the student's weights."""
    from ..distill.data import fingerprint
    from ..distill.experts import ExpertObjective, add_expert, aim_expert, freeze_all_but
    from ..distill.leaves import fit_leaf, fit_quality, see_known
    from ..distill.pairs import Pairs
    from ..distill.weights import read_student, save_student

    start = start or embedded_student()
    grown = add_expert(read_student(start), leaf, parent)
    source = Pairs(pairs, grown.routing, leaf, schedule.patch, schedule.seed)
    described = {"expert": leaf, "parent": parent, "pairs": fingerprint(pairs), "start": sha256(start)}
    described |= {"schedule": _fixed(schedule)}
    _check_folder(out, described)
    known = see_known(grown.student, source)
    fit_leaf(grown.student, leaf, source, known)
    aim_expert(grown.student, leaf, source)
    freeze_all_but(grown.student, leaf)
    objective = ExpertObjective(grown.student.train(), grown.routing)
    _train(objective, leaf, schedule, source, out, described, console)
    # Training leaves its student where and as it computes fastest.
    trained = add_expert(read_student(start), leaf, parent)
    trained.student.load_state_dict(grown.student.state_dict())
    before, after = fit_quality(trained.student.eval(), leaf, source, known)
    decibels = PSNR_AT_ONE - PSNR_AT_ZERO
    console.print(
        f"predicted quality with {leaf}: off by {after * decibels:.1f} dB on the mean ({before * decibels:.1f} before)"
    )
    weights = out / "student.safetensors"
    commands = (*trained.provenance.commands, f"burnish distill --add-expert {leaf}")
    data = (*trained.provenance.data, pairs.name)
    provenance = trained.provenance.model_copy(update={"data": data, "commands": commands})
    # In 32 bits: all else of the student stays bit for bit, also of one whose file has more than 16.
    save_student(trained._replace(provenance=provenance), weights, "fp32")
    return weights


def warn_of_licences(teachers: Iterable[Teacher], console: Console) -> None:
    """Say of which teachers' licences forbid to ship what learns from them."""
    for teacher in teachers:
        if not teacher.commercial_use:
            console.print(
                f"warning: {teacher.name}: {teacher.licence}; what learns from it may not be shipped in a product",
                soft_wrap=True,
            )


def start_paths(section: DistillSection, recipe_path: Path) -> list[Path]:
    """The weights training starts from: the embedded student of the section's size, files beside the recipe, or none."""
    names = (section.start,) if isinstance(section.start, str) else section.start or ()
    return [
        embedded_student(section.size) if name == EMBEDDED_WEIGHTS else resolve(recipe_path, name) for name in names
    ]


def _specialist_paths(section: DistillSection, recipe_path: Path) -> dict[str, Path]:
    return {leaf: resolve(recipe_path, name) for leaf, name in section.specialists.items()}


def teacher_path(name: str | None, recipe_path: Path) -> Path | None:
    """A teacher's weights: those that come with the package, a file beside the recipe, or none. Raises InputError."""
    if name is None:
        return None
    path = EMBEDDED_TEACHER if name == EMBEDDED_WEIGHTS else resolve(recipe_path, name)
    if not path.is_file():
        raise InputError(
            f"{path} is not a file; expected a teacher's weights, or `{EMBEDDED_WEIGHTS}` for the package's own"
        )
    return path


def embedded_student(size: str = "small") -> Path:
    """The full-precision student of a size that comes with the package: in a bundle, or the teacher, which is `base`."""
    return EMBEDDED_TEACHER if size == "base" else embedded(size) / "student.safetensors"


def _described(section: DistillSection, recipe_path: Path, photos: Path) -> dict[str, Any]:
    """What a run of `section` is, wherever its files lie: weights and data by their hashes."""
    from ..distill.data import fingerprint
    from ..distill.teachers.cache import MANIFEST

    data = fingerprint(photos) if section.cache is None else sha256(resolve(recipe_path, section.cache) / MANIFEST)
    start, teacher = start_paths(section, recipe_path), teacher_path(section.teacher, recipe_path)
    fixed = section.model_dump(mode="json", exclude={"photos", "cache", "schedule", "licence", "stored"})
    hashes = {"start": " ".join(map(sha256, start)) or None, "teacher": teacher and sha256(teacher)}
    specialists = {leaf: sha256(path) for leaf, path in _specialist_paths(section, recipe_path).items()}
    return fixed | hashes | {"specialists": specialists, "data": data, "schedule": _fixed(section.schedule)}


def _data_name(section: DistillSection, recipe_path: Path, photos: Path) -> str:
    """The name of the folder of photographs, also of those that a cache was made of."""
    from ..distill.teachers.cache import read_manifest

    return photos.name if section.cache is None else read_manifest(resolve(recipe_path, section.cache)).data


def _fixed(schedule: Schedule) -> dict[str, Any]:
    """What of a schedule a resumed run must share: not how long at most, and not what is only shown."""
    return schedule.model_dump(mode="json", exclude={"minutes", "workers", "log_seconds", "save_seconds"})


def _check_folder(out: Path, described: dict[str, Any]) -> None:
    """Raises InputError where the folder `out` holds the run of something else than described.

    What failed before it trained anything leaves the folder to any other run.
    """
    path = out / RUN
    if not path.exists() or not any((out / name).exists() for name in TRAINED):
        return
    try:
        found: Any = json.loads(path.read_text())
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InputError(f"{path} is damaged; choose another --out")
    if found != described:
        other = next(
            (key for key, value in described.items() if cast(dict[str, Any], found).get(key) != value), "setting"
        )
        raise InputError(f"{out} holds a run with another {other} (see {path}); choose another --out")


def _train(
    objective: Objective[Any],
    what: str,
    schedule: Schedule,
    source: Source,
    out: Path,
    described: dict[str, Any],
    console: Console,
) -> None:
    """Run the loop under a progress bar, or with a line a minute, and fill the model with its averaged weights."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    from safetensors.torch import load_file

    from ..distill.training import train

    _check_folder(out, described)
    out.mkdir(parents=True, exist_ok=True)
    replace(out / RUN, lambda beside: beside.write_text(json.dumps(described, indent=1) + "\n"))
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


def _fit_detection(student: Student, section: DistillSection, photos: Path, console: Console) -> None:
    """Fit leaves' logits again, with a count of the pictures seen."""
    from ..distill.detection import fit_detection

    detection = section.detection
    assert detection is not None
    with counting("fit", console) as show:
        what, total = ", ".join((*detection.leaves, *detection.alone)), detection.pictures
        seed = section.schedule.seed
        fit_detection(student.eval(), photos, section.mixture, detection, seed, lambda done: show(done, total, what))


def _source(section: DistillSection, recipe_path: Path, photos: Path) -> Source:
    from ..distill.data import Photographs
    from ..distill.teachers.cache import CachedTrajectories

    schedule = section.schedule
    if section.cache is None:
        return Photographs(photos, section.mixture, schedule.patch, schedule.seed)
    return CachedTrajectories(resolve(recipe_path, section.cache), schedule.patch, schedule.seed)


def _start(section: DistillSection, recipe_path: Path) -> Trained:
    """The student to train: continued from weights, of its own size or a smaller one, or fresh."""
    from ..distill.specialists import without_specialists
    from ..distill.student import SIZES, Student
    from ..distill.weights import Trained, average, read_student
    from ..distill.widen import widen

    runs = [without_specialists(read_student(path)) for path in start_paths(section, recipe_path)]
    if not runs:
        return Trained(Student(SIZES[section.size]))
    trained = average(runs) if len(runs) > 1 else runs[0]
    if trained.student.config.size == section.size:
        return trained
    return trained._replace(student=widen(trained.student, SIZES[section.size]))


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
    path = teacher_path(section.teacher, recipe_path)
    if path is None:
        return DistillationObjective(student, section.weights, routing), ()
    teacher = load_teacher(path)
    objective = DistillationObjective(student, section.weights, routing, teacher, teacher.feature_width)
    return objective, (origin(teacher.name, teacher.card),)
