"""`burnish build-engine`: TensorRT engines for this machine, from a bundle's program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from ..runtime.bundle import Bundle
from ..runtime.engines import Build, Stamp, build_from_onnx, engines
from ..runtime.errors import InputError

BUILDERS = ("tensorrt", "torch-tensorrt")


def build_engine(
    bundle: Path | None, program: str, built_with: str, cache: Path | None, console: Console
) -> dict[str, Any]:
    """Build (or find in the cache) the engines of a program; where they are and what they fit. Raises BackendError."""
    opened = Bundle.open(bundle)
    chosen = opened.program(program)
    if chosen.target != "tensorrt":
        there = ", ".join(p.name for p in opened.manifest.programs if p.target == "tensorrt") or "none"
        raise InputError(f"{program} is no TensorRT program; this bundle has: {there}")
    if built_with not in BUILDERS:
        raise InputError(f"unknown builder {built_with!r}; expected one of {', '.join(BUILDERS)}")
    build: Build = build_from_onnx
    if built_with == "torch-tensorrt":
        if chosen.precision != "fp16":
            raise InputError(
                f"torch-tensorrt builds fp16 from the student's weights; for {program} use --with tensorrt"
            )
        from ..distill.weights import load_student
        from ..export.torch_tensorrt import builder

        build = builder(load_student(opened.file(opened.manifest.weights)), opened.manifest.tile)
    folder = opened.program_folder(chosen)
    with console.status(f"build {program}") as status:
        place = engines(
            folder,
            cache,
            build=build,
            built_with=built_with,
            progress=lambda what: status.update(f"build {program}: {what}"),
        )
    stamp = Stamp.model_validate_json((place / "engine.json").read_bytes())
    fits = ", ".join(f"{name} {value}" for name, value in stamp.machine._asdict().items())
    return stamp.model_dump(mode="json") | {"path": str(place), "summary": f"{place}: {fits}"}
