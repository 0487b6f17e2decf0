"""The verbs that train, quantise, export and measure; each takes and leaves files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ..runtime.errors import InputError

if TYPE_CHECKING:
    from ..distill.student import Student
    from .recipe import DistillSection


def embedded_student() -> Path:
    """The full-precision student inside the embedded bundle."""
    from ..runtime.bundle import EMBEDDED

    return EMBEDDED / "student.safetensors"


def distill_command(recipe_path: Path, out: Path, data: Path | None, minutes: float | None, console: Console) -> Path:
    """Train what a recipe's distill section describes; returns the weights."""
    from .recipe import read_recipe, resolve

    section = read_recipe(recipe_path).distill
    if section is None:
        raise InputError(f"{recipe_path} has no distill section; see recipes/student-small.yaml")
    if minutes is not None:
        section = section.model_copy(update={"schedule": section.schedule.model_copy(update={"minutes": minutes})})
    return train_section(section, recipe_path, data or resolve(recipe_path, section.photos), out, console)


def train_section(section: DistillSection, recipe_path: Path, photos: Path, out: Path, console: Console) -> Path:
    """Run a training section with a progress line; resumes from `out`."""
    import torch
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from ..distill.training import Objective, train

    torch.manual_seed(section.schedule.seed)
    objective: Objective[Any] = _objective(section, recipe_path)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[row]}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"train {section.model}", total=1.0, row="")

        def show(row: dict[str, float]) -> None:
            db = "  ".join(f"{k.removeprefix('psnr_')} {v:.2f} dB" for k, v in row.items() if k.startswith("psnr"))
            share = row["elapsed_s"] / max(row["elapsed_s"] + row["eta_s"], 1e-9)
            text = f"step {row['step']:.0f}  loss {row['loss']:.4f}  {db}  eta {row['eta_s'] / 60:.1f} min"
            bar.update(task, completed=share, row=text)

        averaged = train(objective, section.schedule, photos, section.mixture, out, show)
    weights = out / f"{section.model}.safetensors"
    _publish(section, averaged, objective, weights)
    return weights


def _objective(section: DistillSection, recipe_path: Path) -> Any:
    from ..distill.distillation import DistillationObjective
    from ..distill.student import SIZES, Student
    from ..distill.teachers.sipl import SIPL_PROMPTIR_S, SIPLPromptIR
    from ..distill.teachers.training import PrivilegedObjective
    from ..distill.weights import load_student, load_teacher
    from ..runtime.routing import Routing

    start = weights_path(section.start, recipe_path)
    if section.model == "teacher":
        return PrivilegedObjective(load_teacher(start).train() if start else SIPLPromptIR(SIPL_PROMPTIR_S))
    student = load_student(start).train() if start else Student(SIZES[section.size])
    if student.config.size != section.size:
        raise InputError(f"{start} is a student of size {student.config.size}; the recipe says {section.size}")
    teacher = weights_path(section.teacher, recipe_path)
    return DistillationObjective(student, load_teacher(teacher) if teacher else None, section.weights, Routing())


def weights_path(name: str | None, recipe_path: Path) -> Path | None:
    """The file a recipe means by `name`: the embedded student, a path beside the recipe, or none."""
    from .recipe import EMBEDDED_WEIGHTS, resolve

    if name is None:
        return None
    if name == EMBEDDED_WEIGHTS:
        return embedded_student()
    return resolve(recipe_path, name)


def _publish(section: DistillSection, averaged: Path, objective: Any, out: Path) -> None:
    """The averaged weights with the metadata that loading asks for."""
    from safetensors.torch import load_file

    from ..distill.weights import save_weights

    model = objective.model
    model.load_state_dict(load_file(averaged))
    if section.model == "teacher":
        save_weights(model, "sipl-promptir-s", {}, out, half=True)
    else:
        save_weights(model, "student", model.config.model_dump(mode="json"), out)


def quantize_command(
    student: Path, out: Path, calibration: Path, tile: int, pictures: int | None, console: Console
) -> None:
    """`burnish quantize`."""
    from ..quantize.config import QuantizeConfig
    from ..runtime.routing import Routing

    config = QuantizeConfig() if pictures is None else QuantizeConfig(pictures=pictures)
    quantize_stage(_student(student), Routing(), calibration, tile, out, config, console)


def _student(path: Path) -> Student:
    from ..distill.weights import load_student

    return load_student(path)


def _check_tile(tile: int) -> None:
    if tile % 16 or not 64 <= tile <= 2048:
        raise InputError(f"tile is {tile}; expected a multiple of 16 between 64 and 2048")


def quantize_stage(
    student: Student, routing: Any, photos: Path, tile: int, out: Path, config: Any, console: Console
) -> None:
    """Quantise with a status line."""
    from ..quantize.stage import quantize_student

    _check_tile(tile)
    with console.status("quantise") as status:
        quantize_student(student, routing, photos, tile, out, config, lambda step: status.update(f"quantise: {step}"))


def export_command(
    student: Path,
    out: Path,
    calibration: Path,
    quantized: Path | None,
    programs: list[str] | None,
    tile: int,
    console: Console,
) -> None:
    """`burnish export`."""
    from ..runtime.bundle import Provenance
    from ..runtime.routing import Routing

    provenance = Provenance(commands=(f"burnish export {student.name}",))
    export_stage(_student(student), Routing(), calibration, quantized, programs, tile, out, provenance, console)


def export_stage(
    student: Student,
    routing: Any,
    photos: Path,
    quantized: Path | None,
    programs: list[str] | None,
    tile: int,
    out: Path,
    provenance: Any,
    console: Console,
) -> None:
    """Write the bundle with a status line."""
    from ..export.context import Context
    from ..export.targets import select
    from ..export.writer import write_bundle
    from ..quantize.calibration import draw_samples
    from ..quantize.config import QuantizeConfig

    _check_tile(tile)
    targets = select(programs)
    if quantized is None:
        if programs and any(t.quantized for t in targets):
            raise InputError("an int8 program was asked for without --quantized; run `burnish quantize` first")
        targets = [t for t in targets if not t.quantized]
    # Another seed than calibration's, so that programs are compared on trajectories they were not calibrated on.
    samples = draw_samples(student, routing, photos, tile, QuantizeConfig(pictures=8, iterations=2, seed=1))
    with console.status("export") as status:
        write_bundle(
            out,
            Context(student, tile, quantized, samples),
            targets,
            routing,
            provenance,
            lambda name: status.update(f"export: {name}"),
        )


def validate_command(
    data: Path,
    bundle: Path | None,
    report: Path,
    max_drop_db: float,
    pictures: int | None,
    conditions: list[str] | None,
    programs: list[str] | None,
    teacher: Path | None,
    iterations: int,
    console: Console,
) -> tuple[dict[str, Any], bool]:
    """`burnish validate`: measure, write the reports, say whether the gate held."""
    from rich.progress import Progress

    from ..device_tests.report import write_report
    from ..device_tests.validate import Plan, measure
    from ..distill.weights import load_teacher
    from ..runtime.bundle import EMBEDDED, Bundle

    plan = Plan(
        data=data,
        pictures=pictures,
        conditions=tuple(conditions or ()),
        programs=tuple(programs or ()),
        iterations=iterations,
        max_drop_db=max_drop_db,
    )
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("validate", total=None)

        def show(done: int, total: int, what: str) -> None:
            bar.update(task, completed=done, total=total, description=f"validate: {what}")

        numerics = measure(
            Bundle.open(bundle or EMBEDDED), plan, None if teacher is None else load_teacher(teacher), show
        )
    write_report(numerics, report)
    result = numerics.model_dump(mode="json") | {"summary": f"{numerics.table()}\nreport: {report / 'report.html'}"}
    return result, numerics.passed


def run_command(recipe: Path, out: Path, console: Console) -> None:
    """`burnish run`."""
    from .pipeline import run_pipeline

    run_pipeline(recipe, out, console)
