"""The bundle writer: every program is written, loaded and compared before the bundle exists."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from ..distill.methods import example_inputs, multiply_adds
from ..distill.weights import save_weights
from ..runtime.bundle import FORMAT, MANIFEST, File, Manifest, Program, Provenance, StudentInfo, sha256
from ..runtime.errors import InputError
from ..runtime.routing import Routing
from .context import Context
from .targets import Target

WEIGHTS_LICENCE = "CC BY-SA 4.0"


def write_bundle(
    out: Path,
    context: Context,
    targets: list[Target],
    routing: Routing,
    provenance: Provenance,
    progress: Callable[[str], None],
) -> Path:
    """Write a bundle at `out`: into a folder beside it, renamed when complete. Raises InputError, BackendError.

    A bundle that is already there is replaced only by a finished one.
    """
    beside = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        beside.mkdir(parents=True)
        save_weights(context.student, "student", context.student.config.model_dump(), beside / "student.safetensors")
        programs: list[Program] = []
        for target in targets:
            progress(target.name)
            folder = beside / "programs" / target.name
            folder.mkdir(parents=True)
            target.write(context, folder)
            programs.append(
                Program(
                    target=target.kind,
                    precision=target.precision,
                    files=tuple(_file(p, beside) for p in sorted(folder.rglob("*")) if p.is_file()),
                    made_with=target.made_with(),
                    verified=target.verify(context, folder),
                    boundary_bytes=boundary_bytes(context),
                )
            )
        config = context.student.config
        manifest = Manifest(
            format=FORMAT,
            student=StudentInfo(
                size=config.size,
                config=config.model_dump(mode="json"),
                parameters=sum(p.numel() for p in context.student.parameters()),
                macs=multiply_adds(context.student),
                rank=config.rank,
            ),
            tile=context.tile,
            routing=routing,
            weights=_file(beside / "student.safetensors", beside),
            programs=tuple(programs),
            provenance=provenance,
            licence=WEIGHTS_LICENCE,
        )
        (beside / MANIFEST).write_text(json.dumps(manifest.model_dump(mode="json"), indent=1) + "\n")
        swap(beside, out)
    except OSError as error:
        raise InputError(f"cannot write {out} ({error}); expected a writable folder with room in it") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return out


def swap(new: Path, old: Path) -> None:
    """Put the folder `new` in the place of `old`, which may not exist."""
    if old.exists():
        if not (old / MANIFEST).is_file():
            raise InputError(f"{old} exists and is no bundle; give another destination")
        retired = old.with_name(f".{old.name}.old{os.getpid()}")
        os.replace(old, retired)
        os.replace(new, old)
        shutil.rmtree(retired)
    else:
        os.replace(new, old)


def boundary_bytes(context: Context) -> dict[str, int]:
    """Bytes of all inputs and outputs of each method: what crosses between host and accelerator."""
    inputs = example_inputs(context.student, context.tile)
    sizes = {name: sum(t.numel() * t.element_size() for t in tensors) for name, tensors in inputs.items()}
    picture = inputs["encode"][0]
    passed = sum(t.numel() * t.element_size() for t in inputs["refine"][1:4]) + inputs["refine"][6].numel() * 4
    assessment = 4 * (2 + len(context.student.config.leaves))
    sizes["encode"] += passed + assessment
    sizes["refine"] += picture.numel() * 4 + 4
    return sizes


def _file(path: Path, root: Path) -> File:
    return File(path=path.relative_to(root).as_posix(), bytes=path.stat().st_size, sha256=sha256(path))
