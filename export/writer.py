"""The bundle writer: every program is written, loaded and compared before the bundle exists."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from ..distill.methods import example_inputs, multiply_adds
from ..distill.weights import Trained, save_student
from ..runtime.bundle import FORMAT, MANIFEST, File, Manifest, Program, StudentInfo, sha256
from ..runtime.files import replace_folder
from .context import WEIGHTS_LICENCE, Context
from .targets import Target


def write_bundle(
    out: Path, context: Context, targets: list[Target], command: str, progress: Callable[[str], None]
) -> Path:
    """Write a bundle at `out`: into a folder beside it, renamed when complete. Raises InputError, BackendError.

    `command` made it, and joins the student's provenance. A bundle that is already there is replaced only by a finished one.
    """
    student, routing, provenance = context.trained
    provenance = provenance.model_copy(update={"commands": (*provenance.commands, command)})

    def save(folder: Path) -> None:
        weights = folder / "student.safetensors"
        save_student(Trained(student, routing, provenance), weights)
        programs: list[Program] = []
        for target in targets:
            progress(target.name)
            place = folder / "programs" / target.name
            place.mkdir(parents=True)
            target.write(context, place)
            programs.append(
                Program(
                    target=target.kind,
                    precision=target.precision,
                    files=tuple(_file(p, folder) for p in sorted(place.rglob("*")) if p.is_file()),
                    made_with=target.made_with(),
                    verified=target.verify(context, place),
                    boundary_bytes=boundary_bytes(context),
                )
            )
        manifest = Manifest(
            format=FORMAT,
            student=StudentInfo(
                size=student.config.size,
                config=student.config.model_dump(mode="json"),
                parameters=sum(p.numel() for p in student.parameters()),
                macs=multiply_adds(student),
                rank=student.config.rank,
            ),
            tile=context.tile,
            routing=routing,
            weights=_file(weights, folder),
            programs=tuple(programs),
            provenance=provenance,
            licence=WEIGHTS_LICENCE,
        )
        (folder / MANIFEST).write_text(json.dumps(manifest.model_dump(mode="json"), indent=1) + "\n")

    replace_folder(out, MANIFEST, save)
    return out


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
