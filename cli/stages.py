"""The verbs that quantise, export and measure; each takes and leaves files."""

from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ..runtime.bundle import MANIFEST, locate
from ..runtime.errors import InputError
from ..runtime.files import check_replaceable
from .progress import counting

if TYPE_CHECKING:
    from ..device_tests.validate import Plan
    from ..quantize.config import QuantizeConfig


def quantize_command(
    student: Path,
    out: Path,
    calibration: Path,
    tile: int,
    targets: list[str] | None,
    pictures: int | None,
    train_minutes: float | None,
    max_drop_db: float | None,
    explain: bool,
    console: Console,
) -> None:
    """`burnish quantize`; with `max_drop_db` layers stay in float until no condition loses more."""
    from ..quantize.config import TARGET_NAMES, QuantizeConfig

    unknown = [name for name in targets or () if name not in TARGET_NAMES]
    if unknown:
        raise InputError(f"unknown target {unknown[0]!r}; expected some of {', '.join(TARGET_NAMES)}")
    given = {"targets": targets, "pictures": pictures, "training_minutes": train_minutes}
    config = QuantizeConfig.model_validate({name: value for name, value in given.items() if value is not None})
    lost = [name for name in TARGET_NAMES if name not in config.targets and (out / name).is_dir()]
    if lost:
        raise InputError(
            f"{out} also holds graphs for {' and '.join(lost)}, which would be lost; give another folder, or all targets"
        )
    quantize_stage(find_student(student), calibration, tile, out, config, console, max_drop_db, explain)


def find_student(student: Path) -> Path:
    """A student's file, or that of the embedded bundle which `locate` finds by a size."""
    from .training import embedded_student

    return student if locate(student) == student else embedded_student(student.name)


def check_tile(tile: int) -> None:
    """Raise InputError unless a student takes tiles of this size."""
    if tile % 16 or not 64 <= tile <= 2048:
        raise InputError(f"tile is {tile}; expected a multiple of 16 between 64 and 2048")


def quantize_stage(
    student: Path,
    photos: Path,
    tile: int,
    out: Path,
    config: QuantizeConfig,
    console: Console,
    max_drop_db: float | None = None,
    explain: bool = False,
) -> None:
    """Quantise with a status line."""
    from ..distill.data import list_pictures
    from ..distill.weights import read_student
    from ..quantize.record import MARKER

    check_tile(tile)
    check_replaceable(out, MARKER)
    trained = read_student(student)
    list_pictures(photos)
    # Imported once the input is known to be good: executorch's libraries talk on stderr while they load.
    from ..quantize.stage import explain_student, quantize_student
    from .quantisation import judges, show_found, show_sensitivities

    with console.status("quantise") as status:

        def step(text: str) -> None:
            status.update(f"quantise: {text}")

        judged = None if max_drop_db is None else judges(trained, tile, photos, max_drop_db)
        quantize_student(trained, photos, tile, out, config, step, judged, partial(show_found, console, trained, tile))
        if explain:
            step("sensitivity of every layer")
            show_sensitivities(console, explain_student(trained, photos, tile, config))


def export_command(
    student: Path,
    out: Path,
    calibration: Path,
    quantized: Path | None,
    programs: list[str] | None,
    tile: int,
    experts: list[str],
    command: str,
    console: Console,
) -> None:
    """`burnish export`: write the bundle with a status line; `command` goes into its provenance."""
    from ..distill.data import list_pictures
    from ..distill.weights import read_student
    from ..export.targets import select
    from ..quantize.record import read_record

    check_tile(tile)
    check_replaceable(out, MANIFEST)
    trained = read_student(find_student(student))
    targets = select(programs)
    list_pictures(calibration)
    if quantized is None:
        if programs and any(t.quantized for t in targets):
            raise InputError("an int8 program was asked for without --quantized; run `burnish quantize` first")
        targets = [t for t in targets if not t.quantized]
    else:
        made_for = read_record(quantized).tile
        if made_for != tile:
            raise InputError(
                f"{quantized} was quantised for tiles of {made_for}, not {tile}; give --tile {made_for}, or quantise again"
            )
        without = [t for t in targets if t.quantizer is not None and not (quantized / t.quantizer).is_dir()]
        if programs and without:
            raise InputError(f"{quantized} has no {without[0].quantizer} graphs, of which {without[0].name} is made")
        targets = [t for t in targets if t not in without]
    # Imported once the input is known to be good, as in quantize_stage.
    from ..export.context import Context
    from ..export.experts import read_packs
    from ..export.writer import write_bundle
    from ..quantize.calibration import draw_samples
    from ..quantize.config import QuantizeConfig
    from .training import warn_of_licences

    warn_of_licences(trained.provenance.teachers, console)
    packs = read_packs(trained.student, experts)
    # Another seed than calibration's, so that programs are compared on trajectories they were not calibrated on.
    comparison = QuantizeConfig(pictures=8, iterations=2, seed=1)
    samples = draw_samples(trained.student, trained.routing, calibration, tile, comparison)
    context = Context(trained, tile, quantized, samples, packs=packs)
    steps, done = len(targets) * (1 + len(packs)), itertools.count()
    with counting("export", console) as show:
        write_bundle(out, context, targets, command, lambda name: show(next(done), steps, name))


def validate_command(bundle: Path | None, plan: Plan, report: Path, console: Console) -> tuple[dict[str, Any], bool]:
    """`burnish validate`: measure, write the reports, say whether the gate held."""
    from ..device_tests.devices import kind_of
    from ..device_tests.report import PAGE, write_validation
    from ..device_tests.table import table
    from ..device_tests.validate import measure
    from ..runtime.bundle import Bundle

    if plan.device is not None:
        kind_of(plan.device)
    with counting("validate", console) as show:
        opened = Bundle.open(bundle)
        numerics, pictures = measure(opened, plan, report, show)
    write_validation(numerics, pictures, report, opened)
    summary = f"{table(numerics)}\nreport: {report / PAGE}"
    return numerics.model_dump(mode="json") | {"summary": summary}, numerics.passed
