"""The bundle writer: every program is written, loaded and compared before the bundle exists."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..distill.methods import example_inputs, methods, multiply_adds
from ..distill.weights import save_student
from ..quantize.record import read_record
from ..runtime.backends import Session
from ..runtime.bundle import (
    FORMAT,
    MANIFEST,
    Expectation,
    ExpertPack,
    File,
    Manifest,
    Program,
    SelfTest,
    StudentInfo,
    sha256,
)
from ..runtime.errors import BackendError, InputError
from ..runtime.files import replace_folder
from ..runtime.methods import refiners
from ..runtime.selftest import INPUTS
from . import selftest
from .agreement import Agreement, restored_by_methods
from .context import Context
from .expert_pack import write_pack
from .experts import read_pack
from .targets import Target


def write_bundle(
    out: Path, context: Context, targets: list[Target], command: str, progress: Callable[[str], None]
) -> Path:
    """Write a bundle at `out`: into a folder beside it, renamed when complete. Raises InputError, BackendError.

    `command` made it, and joins the student's provenance in the manifest. A bundle that is already there is replaced only by a
    finished one.
    """
    student, routing, provenance = context.trained
    quantised = () if context.quantized is None else (read_record(context.quantized).command,)
    commands = (*provenance.commands, *quantised, command)

    def save(folder: Path) -> None:
        weights = folder / "student.safetensors"
        save_student(context.trained, weights)
        (folder / "tests").mkdir()
        selftest.write_inputs(selftest.inputs(context), folder / INPUTS)
        programs: list[Program] = []
        expected: list[Expectation] = []
        for target in targets:
            progress(target.name)
            place = folder / "programs" / target.name
            place.mkdir(parents=True)
            target.write(context, place)
            session = target.load(place)
            programs.append(
                Program(
                    target=target.kind,
                    precision=target.precision,
                    files=tuple(_file(p, folder) for p in sorted(place.rglob("*")) if p.is_file()),
                    made_with=target.made_with(),
                    verified=target.verify(context, place, session),
                    boundary_bytes=target.boundary_bytes(place) or boundary_bytes(context, target.feature_bytes),
                    delegates=target.delegates(place),
                )
            )
            if session is not None:
                expected.append(_expectation(target, session, context, folder))
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
            self_test=SelfTest(inputs=_file(folder / INPUTS, folder), expected=tuple(expected)),
            experts=tuple(_pack(name, context, targets, folder, progress) for name in context.packs),
            provenance=provenance.model_copy(update={"commands": commands}),
            licence=context.licence,
        )
        (folder / MANIFEST).write_text(json.dumps(manifest.model_dump(mode="json"), indent=1) + "\n")

    replace_folder(out, MANIFEST, save)
    return out


def _expectation(target: Target, session: Session, context: Context, folder: Path) -> Expectation:
    """A program's answer to the bundle's own inputs, written to tests/."""
    path = folder / "tests" / f"{target.name}.safetensors"
    selftest.write_expected(session, selftest.inputs(context), refiners(context.trained.routing.specialists), path)
    tolerance = selftest.TOLERANCES[target.precision]
    return Expectation(
        program=target.name,
        file=_file(path, folder),
        computed_by=f"{target.backend} on {platform.machine()}",
        least_psnr=tolerance.least_psnr,
        quality_tolerance=tolerance.quality,
    )


def _pack(
    name: str, context: Context, targets: list[Target], folder: Path, progress: Callable[[str], None]
) -> ExpertPack:
    """A pack of experts in int8 and for every program that can exchange them, each loaded and compared."""
    student = context.packs[name]
    others = folder / "experts"
    others.mkdir(exist_ok=True)
    weights = others / f"{name}.safetensors"
    write_pack(student, weights)
    apart = Agreement.between(
        restored_by_methods(methods(read_pack(context.student, weights)), context),
        restored_by_methods(methods(student), context),
    )
    written: dict[str, File] = {}
    for target in targets:
        progress(f"experts {name}: {target.name}")
        place, path = folder / "programs" / target.name, others / f"{name}.{target.name}.ptd"
        try:
            if not target.write_pack(context, student, place, path):
                continue
            # Quantised graphs are those of the student's own experts.
            exchanged = replace(context, trained=context.trained._replace(student=student), quantized=None)
            target.verify(exchanged, place, target.load(place, path))
        except (BackendError, InputError) as error:
            raise type(error)(f"experts {name} for {target.name}: {error}") from None
        written[target.name] = _file(path, folder)
    return ExpertPack(
        name=name, weights=_file(weights, folder), programs=written, verified=f"int8, {apart} from its student"
    )


def boundary_bytes(context: Context, feature_bytes: int) -> dict[str, int]:
    """Bytes of all inputs and outputs of each method: what crosses between host and accelerator.

    `feature_bytes`: of a number in features and tokens; everything else is float32.
    """
    inputs = example_inputs(context.student, context.tile)
    current, *features, gates = (t.numel() for t in inputs["refine"])
    first, second, third, _, _, tokens = features
    assessment = 2 + len(context.student.config.leaves)
    return {
        "encode": 4 * (current + assessment) + feature_bytes * (first + second + third + tokens),
        "refine": 4 * (2 * current + gates + 1) + feature_bytes * sum(features),
    }


def _file(path: Path, root: Path) -> File:
    return File(path=path.relative_to(root).as_posix(), bytes=path.stat().st_size, sha256=sha256(path))
