"""The quantisation stage: a student and photographs in, a folder of quantised graphs out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..distill.weights import Trained, save_student
from ..runtime.files import replace_folder
from . import core, qat
from .calibration import draw_samples
from .config import QuantizeConfig
from .coreml import COREML
from .equalise import equalise
from .tensorrt import TENSORRT
from .xnnpack import XNNPACK

MARKER = "quantize.json"
# The full-precision student that was quantised: equal outputs, other channel scales.
EQUALISED = "student.safetensors"
TARGETS = {"xnnpack": XNNPACK, "coreml": COREML, "tensorrt": TENSORRT}


def quantize_student(
    trained: Trained, photos: Path, tile: int, out: Path, config: QuantizeConfig, progress: Callable[[str], None]
) -> Path:
    """Write `out/TARGET/{encode,refine}.pt2` for every target, the equalised student, and `out/quantize.json`.

    Calibrated on trajectories over `photos`. The folder appears when it is complete. Raises InputError.
    """

    def training_line(name: str) -> Callable[[dict[str, float]], None]:
        return lambda row: progress(
            f"{name}: step {row['step']:.0f}, int8 costs {row['lost_db']:.3f} dB, {row['eta_s'] / 60:.1f} min left"
        )

    def save(folder: Path) -> None:
        progress("trajectories")
        drawn = draw_samples(trained.student, trained.routing, photos, tile, config)
        student = equalise(trained.student, drawn, config.equalisation)
        samples = draw_samples(student, trained.routing, photos, tile, config)  # features now have other scales
        for name, target in TARGETS.items():
            progress(name)
            (folder / name).mkdir()
            graphs = core.quantize(student, tile, target, samples, config)
            if config.training_minutes is not None:
                schedule = qat.make_schedule(config.training_minutes, tile, config.seed)
                run = out.with_name(f"{out.name}-training") / name
                qat.fine_tune(graphs, student, trained.routing, photos, schedule, run, training_line(name))
            core.write(graphs, student, tile, folder / name)
        save_student(Trained(student, trained.routing, trained.provenance), folder / EQUALISED)
        (folder / MARKER).write_text(config.model_dump_json(indent=1) + "\n")

    replace_folder(out, MARKER, save)
    return out
