"""The quantisation stage: a student and photographs in, a folder of quantised graphs out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import fx

from ..distill.student import Student
from ..distill.weights import Trained, save_student
from ..runtime.files import replace_folder
from . import core, qat
from .calibration import Samples, draw_samples
from .config import QuantizeConfig
from .coreml import COREML
from .equalise import equalise
from .record import MARKER, Record
from .search import Evaluate, Found, search
from .sensitivity import Sensitivity, sensitivities
from .tensorrt import TENSORRT
from .xnnpack import XNNPACK

# The full-precision student that was quantised: equal outputs, other channel scales.
EQUALISED = "student.safetensors"
TARGETS = {"xnnpack": XNNPACK, "coreml": COREML, "tensorrt": TENSORRT}


def quantize_student(
    trained: Trained,
    photos: Path,
    tile: int,
    out: Path,
    config: QuantizeConfig,
    progress: Callable[[str], None],
    judges: Mapping[str, Evaluate] | None = None,
    found: Callable[[str, Found], None] | None = None,
) -> Path:
    """Write `out/TARGET/METHOD.pt2` for every method and target of `config`, the equalised student, and `out/quantize.json`.

    Calibrated on trajectories over `photos`. `judges`: how the loaded program of a target is judged, where layers are to stay
    in float until it passes; `found` is told the outcome. The folder appears when it is complete. Raises InputError.
    """

    kept: dict[str, tuple[str, ...]] = {}

    def graphs_for(name: str, student: Student, samples: Samples) -> dict[str, fx.GraphModule]:
        target = TARGETS[name]
        if name not in (judges or {}):
            return core.quantize(student, tile, target, samples, config)
        judge = (judges or {})[name]
        outcome = search(student, tile, target, samples, config, judge, lambda step: progress(f"{name}: {step}"))
        kept[name] = tuple(row.layer for row in outcome.layers)
        if found is not None:
            found(name, outcome)
        return outcome.graphs

    def train(name: str, graphs: dict[str, fx.GraphModule], student: Student, minutes: float) -> None:
        schedule = qat.make_schedule(minutes, tile, config.seed)
        run = out.with_name(f"{out.name}-training") / name

        def line(row: dict[str, float]) -> None:
            lost, left = row["lost_db"], row["eta_s"] / 60
            progress(f"{name}: step {row['step']:.0f}, int8 costs {lost:.3f} dB, {left:.1f} min left")

        qat.fine_tune(graphs, student, trained.routing, photos, schedule, run, line)

    def save(folder: Path) -> None:
        progress("trajectories")
        student, samples = _equalised(trained, photos, tile, config)
        for name in config.targets:
            progress(name)
            (folder / name).mkdir()
            graphs = graphs_for(name, student, samples)
            if config.training_minutes is not None:
                train(name, graphs, student, config.training_minutes)
            core.write(graphs, student, tile, folder / name)
        # In full precision: what was done to each channel is read from its ratio to the student.
        save_student(Trained(student, trained.routing, trained.provenance), folder / EQUALISED, "fp32")
        record = Record(config=config, tile=tile, kept_in_float=kept)
        (folder / MARKER).write_text(record.model_dump_json(indent=1) + "\n")

    replace_folder(out, MARKER, save)
    return out


def explain_student(trained: Trained, photos: Path, tile: int, config: QuantizeConfig) -> list[Sensitivity]:
    """What every layer's rounding costs under XNNPACK's rules, the costliest first."""
    student, samples = _equalised(trained, photos, tile, config)
    return sensitivities(core.quantize(student, tile, XNNPACK, samples, config), student, samples)


def _equalised(trained: Trained, photos: Path, tile: int, config: QuantizeConfig) -> tuple[Student, Samples]:
    """The student to quantise, and trajectories with its features."""
    drawn = draw_samples(trained.student, trained.routing, photos, tile, config)
    student = equalise(trained.student, drawn, config.equalisation)
    return student, draw_samples(student, trained.routing, photos, tile, config)
