"""The quantisation stage: a student and photographs in, a folder of quantised graphs out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..distill.weights import Trained
from ..runtime.files import replace_folder
from . import core, tensorrt
from .calibration import draw_samples
from .config import QuantizeConfig
from .xnnpack import xnnpack_quantizer

MARKER = "quantize.json"


def quantize_student(
    trained: Trained, photos: Path, tile: int, out: Path, config: QuantizeConfig, progress: Callable[[str], None]
) -> Path:
    """Write `out/xnnpack/{encode,refine}.pt2`, `out/tensorrt/{encode,refine}.onnx` and `out/quantize.json`.

    Calibrated on trajectories over `photos`. The folder appears when it is complete. Raises InputError.
    """
    student = trained.student

    def save(folder: Path) -> None:
        for name in ("xnnpack", "tensorrt"):
            (folder / name).mkdir()
        progress("trajectories")
        samples = draw_samples(student, trained.routing, photos, tile, config)
        progress("xnnpack")
        graphs = core.quantize(student, tile, xnnpack_quantizer, samples, config)
        core.write(graphs, student, tile, folder / "xnnpack")
        progress("tensorrt")
        tensorrt.write(student, tile, samples, config, folder / "tensorrt")
        (folder / MARKER).write_text(config.model_dump_json(indent=1) + "\n")

    replace_folder(out, MARKER, save)
    return out
