"""Recipes: what is wrong is refused when the recipe is read, not by the stage that uses it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from burnish.cli.pipeline import run_pipeline
from burnish.cli.recipe import read_recipe
from burnish.cli.training import RUN, add_expert_command
from burnish.distill.experts import EXPERT_SCHEDULE
from burnish.runtime.errors import InputError
from rich.console import Console
from shared import PHOTOS

RECIPES = PHOTOS.parent


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_what_ships_is_read(recipe: Path) -> None:
    assert read_recipe(recipe).version == 1


def test_training_needs_nothing_that_only_exports_need() -> None:
    code = "import sys, burnish.cli.recipe; print(*{'onnx', 'executorch', 'nncf', 'coremltools'} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("distill: {photos: p, size: huge}", "expected nano, small"),
        ("distill: {photos: p, model: restormerr}", "expected student, "),
        ("distill: {photos: p, expert: haze}", "needs muon: false and weight_decay: 0"),
        ("distill: {photos: p, model: nafnet, expert: haze}", "of students; leave it out to train nafnet"),
        ("export: {tile: 200}", "multiple of 16"),
        ("export: {programs: [onnx-fp64]}", "unknown program 'onnx-fp64'"),
        ("validate: {photos: p, programs: [onnx]}", "unknown program 'onnx'"),
        ("profile: {devices: [hots]}", "unknown device 'hots'"),
        ("restore: {photo: p, degradations: {fog: 0.5}}", "unknown degradation 'fog'"),
        ("restore: {photo: p, degradations: {rain: 2}}", "less than or equal to 1"),
    ],
)
def test_a_wrong_value_is_refused_when_the_recipe_is_read(tmp_path: Path, section: str, said: str) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"version: 1\n{section}\n")
    with pytest.raises(InputError, match=said):
        read_recipe(recipe)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ("restore: {photo: none.png}", "no calibration"),
        ("calibration: none", "none is not a folder"),
        (f"calibration: {PHOTOS / 'dev'}\nvalidate: {{photos: none}}", "none is not a folder"),
        (f"calibration: {PHOTOS / 'dev'}\nrestore: {{photo: none.png}}", "none.png is not a file"),
    ],
)
def test_photographs_that_are_missing_stop_a_run_before_its_first_stage(
    tmp_path: Path, sections: str, said: str
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"version: 1\ndistill: {{photos: {PHOTOS / 'train'}}}\n{sections}\n")
    with pytest.raises(InputError, match=said):
        run_pipeline(recipe, tmp_path / "out", Console(quiet=True))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ["[]", "{"])
def test_a_damaged_run_is_refused(tmp_path: Path, content: str) -> None:
    for half in ("degraded", "clean"):
        shutil.copytree(PHOTOS / "dev", tmp_path / "pairs" / half)
    (tmp_path / RUN).write_text(content)
    with pytest.raises(InputError, match=r"run\.json is damaged"):
        add_expert_command("sand", tmp_path / "pairs", "weather", None, EXPERT_SCHEDULE, tmp_path, Console(quiet=True))
