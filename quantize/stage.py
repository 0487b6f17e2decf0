"""The quantisation stage: a student and photographs in, a folder of quantised graphs out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from ..distill.student import Student
from ..runtime.errors import InputError
from ..runtime.routing import Routing
from . import core, tensorrt
from .calibration import draw_samples
from .config import QuantizeConfig
from .xnnpack import xnnpack_quantizer


def quantize_student(
    student: Student,
    routing: Routing,
    photos: Path,
    tile: int,
    out: Path,
    config: QuantizeConfig,
    progress: Callable[[str], None],
) -> Path:
    """Write `out/xnnpack/{encode,refine}.pt2`, `out/tensorrt/{encode,refine}.onnx` and `out/quantize.json`.

    Calibrated on trajectories over `photos`. The folder appears when it is complete. Raises InputError.
    """
    beside = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        for name in ("xnnpack", "tensorrt"):
            (beside / name).mkdir(parents=True)
        progress("trajectories")
        samples = draw_samples(student, routing, photos, tile, config)
        progress("xnnpack")
        graphs = core.quantize(student, tile, xnnpack_quantizer, samples, config)
        core.write(graphs, student, tile, beside / "xnnpack")
        progress("tensorrt")
        tensorrt.write(student, tile, samples, config, beside / "tensorrt")
        (beside / "quantize.json").write_text(config.model_dump_json(indent=1) + "\n")
        if out.exists():
            if not (out / "quantize.json").is_file():
                raise InputError(f"{out} exists and holds no quantised graphs; give another destination")
            shutil.rmtree(out)
        os.replace(beside, out)
    except OSError as error:
        raise InputError(f"cannot write {out} ({error}); expected a writable folder with room in it") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return out
