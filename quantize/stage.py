"""The quantisation stage: a student and photographs in, a folder of quantised graphs out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import ValidationError
from torch import fx

from ..distill.recipe import Frozen
from ..distill.student import Student
from ..distill.weights import Trained, save_student
from ..runtime.errors import InputError
from ..runtime.files import replace_folder
from . import core, qat
from .calibration import Samples, draw_samples
from .config import QuantizeConfig
from .coreml import COREML
from .equalise import equalise
from .search import Evaluate, Found, search
from .sensitivity import Sensitivity, sensitivities
from .tensorrt import TENSORRT
from .xnnpack import XNNPACK

MARKER = "quantize.json"
# The full-precision student that was quantised: equal outputs, other channel scales.
EQUALISED = "student.safetensors"
TARGETS = {"xnnpack": XNNPACK, "coreml": COREML, "tensorrt": TENSORRT}


class Record(Frozen):
    """quantize.json: how it was done, and what stays in float beside the configured layers, by target."""

    config: QuantizeConfig
    kept_in_float: dict[str, tuple[str, ...]]

    @property
    def command(self) -> str:
        """What a bundle's provenance says of it."""
        minutes = self.config.training_minutes
        return "burnish quantize" if minutes is None else f"burnish quantize --train-minutes {minutes:g}"


def read_record(folder: Path) -> Record:
    """How the graphs of a folder were quantised. Raises InputError for a folder of another version, or none of ours."""
    try:
        return Record.model_validate_json((folder / MARKER).read_bytes())
    except (OSError, ValidationError):
        raise InputError(f"{folder / MARKER} cannot be read; run `burnish quantize` again") from None


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
    """Write `out/TARGET/{encode,refine}.pt2` for every target of `config`, the equalised student, and `out/quantize.json`.

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
        save_student(Trained(student, trained.routing, trained.provenance), folder / EQUALISED)
        (folder / MARKER).write_text(Record(config=config, kept_in_float=kept).model_dump_json(indent=1) + "\n")

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
