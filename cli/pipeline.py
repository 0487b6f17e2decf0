"""`burnish run`: a recipe's stages in order, each skipped when its inputs have not changed.

A stage's key is a hash of everything it depends on; when it is finished the key is written beside its results. An
interrupted run continues where it was: finished stages are skipped, training resumes from its checkpoint, and other
stages start over beside their old results.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from ..device_tests.pairs import find_pairs
from ..device_tests.protocol import load_protocol
from ..distill.data import list_pictures
from ..distill.weights import load_teacher
from ..runtime.errors import DeviceError, GateFailed, InputError
from ..runtime.files import replace
from ..runtime.pictures import Picture, read, write
from .recipe import Recipe, read_recipe, resolve
from .stages import export_command, quantize_stage, validate_command
from .training import embedded_student, start_paths, teacher_path, train_section


def run_pipeline(recipe_path: Path, out: Path, console: Console) -> None:
    """Run every stage the recipe has. Raises InputError, and GateFailed after everything was written."""
    recipe = read_recipe(recipe_path)
    run = _Run(recipe, recipe_path, out, console)
    run.check()
    out.mkdir(parents=True, exist_ok=True)
    student = run.distill()
    quantized = run.quantize(student)
    bundle, exported = run.export(student, quantized)
    passed = run.validate(bundle, exported)
    run.profile(bundle, exported)
    run.restore(bundle, exported)
    console.print(f"[bold]done[/]: bundle {bundle}")
    if not passed:
        raise GateFailed(f"a program lost more than allowed; see {out / 'reports' / 'report.html'}")


class _Run:
    """One execution of a recipe."""

    def __init__(self, recipe: Recipe, path: Path, out: Path, console: Console) -> None:
        self.recipe, self.path, self.out, self.console = recipe, path, out, console

    def _stage(self, name: str, depends: Any, result: Path, work: Callable[[], None]) -> str:
        """Do `work` unless `result` is there and was made from the same `depends`; the stage's key."""
        stamps = self.out / "stages"
        stamps.mkdir(exist_ok=True)
        stamp = stamps / f"{name}.json"
        key = _key([version("burnish"), name, depends])
        if stamp.is_file() and result.exists() and json.loads(stamp.read_text())["key"] == key:
            self.console.print(f"{name}: up to date")
            return key
        self.console.print(f"[bold]{name}[/]")
        work()
        content = json.dumps({"key": key, "result": str(result)}) + "\n"
        replace(stamp, lambda beside: beside.write_text(content))
        return key

    def check(self) -> None:
        """Raises InputError for what cannot be read: hours of training may lie before the stage that reads it."""
        recipe, validate = self.recipe, self.recipe.validate_on
        if recipe.calibration is None:
            raise InputError(f"{self.path} has no calibration; expected a folder of photographs")
        for folder in (recipe.calibration, *([recipe.distill.photos] if recipe.distill else [])):
            list_pictures(resolve(self.path, folder))
        if validate is not None:
            find_pairs(resolve(self.path, validate.photos), validate.conditions, validate.pictures, load_protocol())
            teacher = teacher_path(validate.teacher, self.path)
            if teacher is not None:
                load_teacher(teacher)
        if recipe.restore is not None:
            read(resolve(self.path, recipe.restore.photo))

    def distill(self) -> Path:
        section = self.recipe.distill
        if section is None:
            return embedded_student()
        photos = resolve(self.path, section.photos)
        used = [*start_paths(section, self.path), teacher_path(section.teacher, self.path)]
        routing = self.recipe.routing and self.recipe.routing.model_dump(mode="json")
        depends = [section.model_dump(mode="json"), routing, _tree(photos), *(_hash(path) for path in used if path)]
        if section.cache is not None:
            depends.append(_tree(resolve(self.path, section.cache)))
        # A run folder a key: a changed recipe never resumes another recipe's checkpoint.
        folder = self.out / "distill" / _key(depends)[:12]
        weights = folder / "student.safetensors"

        def work() -> None:
            for stale in (self.out / "distill").glob("*"):
                if stale != folder:
                    shutil.rmtree(stale)
            train_section(section, self.recipe.routing, self.path, photos, folder, self.console)

        self._stage("distill", depends, weights, work)
        return weights

    def quantize(self, student: Path) -> Path:
        assert self.recipe.calibration is not None
        photos, folder = resolve(self.path, self.recipe.calibration), self.out / "quantized"
        config, tile = self.recipe.quantize, self.recipe.export.tile
        depends = [_hash(student), _tree(photos), config.model_dump(mode="json"), tile]
        self._stage(
            "quantize",
            depends,
            folder,
            lambda: quantize_stage(student, photos, tile, folder, config, self.console),
        )
        return folder

    def export(self, student: Path, quantized: Path) -> tuple[Path, str]:
        """The bundle, and the key it was made by: its manifest changes when it is profiled."""
        assert self.recipe.calibration is not None
        bundle, photos = self.out / "photo.bundle", resolve(self.path, self.recipe.calibration)
        section = self.recipe.export
        depends = [_hash(student), _tree(quantized), section.model_dump(mode="json")]
        key = self._stage(
            "export",
            depends,
            bundle,
            lambda: export_command(
                student,
                bundle,
                photos,
                quantized,
                list(section.programs) or None,
                section.tile,
                [],
                f"burnish run {self.path.name}",
                self.console,
            ),
        )
        return bundle, key

    def validate(self, bundle: Path, exported: str) -> bool:
        section = self.recipe.validate_on
        if section is None:
            return True
        photos, folder = resolve(self.path, section.photos), self.out / "reports"
        verdict = folder / "numerics.json"

        def work() -> None:
            from ..device_tests.validate import Plan

            plan = Plan(
                data=photos,
                pictures=section.pictures,
                conditions=section.conditions,
                programs=section.programs,
                iterations=section.iterations,
                teacher=teacher_path(section.teacher, self.path),
                gate=section.gate,
                keep_slow=section.keep_slow,
            )
            result, _ = validate_command(bundle, plan, folder, self.console)
            self.console.print(result["summary"], highlight=False, soft_wrap=True)

        self._stage("validate", [exported, _tree(photos), section.model_dump(mode="json")], verdict, work)
        return not json.loads(verdict.read_text())["failures"]

    def profile(self, bundle: Path, exported: str) -> None:
        """Raises DeviceError when a device could not be measured; what was measured is kept, and the rest is tried again."""
        section = self.recipe.profile
        if section is None:
            return
        folder = self.out / "reports"

        def work() -> None:
            from ..device_tests.profile import Plan
            from .profile import profile_command

            plan = Plan(
                programs=section.programs, threads=section.threads, runs=section.runs, blocks=min(5, section.runs)
            )
            result, complete = profile_command(bundle, section.devices, plan, folder, True, False, self.console)
            self.console.print(result["summary"], highlight=False, soft_wrap=True)
            if not complete:
                raise DeviceError(
                    "not every device could be measured; mend what is said above and run the recipe again"
                )

        self._stage("profile", [exported, section.model_dump(mode="json")], folder / "perf.json", work)

    def restore(self, bundle: Path, exported: str) -> None:
        section = self.recipe.restore
        if section is None:
            return
        photo = resolve(self.path, section.photo)
        result = self.out / "restored.png"

        def work() -> None:
            from ..distill.degradations import degrade
            from .restore import restore_file

            degraded = self.out / "degraded.png"
            write(Picture(degrade(read(photo).rgb, section.degradations, seed=7).astype(np.float32)), degraded)
            row = restore_file(
                degraded,
                result,
                bundle=bundle,
                budget_ms=section.budget_ms,
                min_quality=None,
                max_iterations=4,
                degradation=None,
                backend="auto",
                program=None,
                trace=self.out / "trace",
            )
            self.console.print(row["summary"], highlight=False, soft_wrap=True)

        self._stage("restore", [exported, _hash(photo), section.model_dump(mode="json")], result, work)


def _key(depends: Any) -> str:
    return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _tree(folder: Path) -> dict[str, str]:
    """Hashes of all files below a folder, by relative path."""
    return {p.relative_to(folder).as_posix(): _hash(p) for p in sorted(folder.rglob("*")) if p.is_file()}
