"""Recipes: what is wrong is refused when the recipe is read, not by the stage that uses it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from burnish.cli.pipeline import run_pipeline
from burnish.cli.recipe import read_recipe
from burnish.cli.training import RUN, TRAINED, add_expert_command, distill_command
from burnish.distill.experts import EXPERT_SCHEDULE
from burnish.runtime.errors import InputError
from rich.console import Console
from shared import PHOTOS

RECIPES, DEV = PHOTOS.parent, PHOTOS / "dev"


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
        ("distill: {photos: p, model: nafnet, frozen: [encoder]}", "`frozen` is of students"),
        ("distill: {photos: p, model: nafnet, start: [a, b]}", "a list in `start` is of students"),
        ("distill: {photos: p, start: []}", "at least one"),
        ("distill: {photos: p, stored: int8, frozen: [encoder]}", "`stored: int8` rounds all of the student"),
        ("routing: {certain: {jpeg: 0}}", "routing.certain.jpeg: Input should be greater than 0"),
        ("routing: {certain: {jpeg: 1.5}}", "routing.certain.jpeg: Input should be less than 1"),
        ("routing: {specialists: [noise]}", "routing: Value error, `specialists` come with the weights"),
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
    ("content", "said"),
    [
        (
            b"version: 1\ndistill: {photos: p\nexport: {}\n",
            "recipe.yaml, line 3, is not valid YAML: expected ',' or '}'",
        ),
        (b"PK\x03\x04\xff", "recipe.yaml is not valid YAML: "),
        (b"distill: {photos: gr\xfcn}", "recipe.yaml is not valid YAML: 'utf-8' codec can't decode byte 0xfc"),
        (b"distill: {photos: 2026-99-01}", "recipe.yaml is not valid YAML: month must be in 1..12"),
        (b"", "recipe.yaml has no sections; expected a recipe"),
        (b"- distill", "recipe.yaml has no sections; expected a recipe"),
    ],
)
def test_what_is_no_recipe_is_refused_in_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_bytes(content)
    with pytest.raises(InputError) as refused:
        read_recipe(recipe)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ("restore: {photo: none.png}", "no calibration"),
        ("calibration: none", "none is not a folder"),
        (f"calibration: {DEV}\nvalidate: {{photos: none}}", "none is not a folder"),
        (f"calibration: {DEV}\nrestore: {{photo: none.png}}", "none.png is not a file"),
        (f"calibration: {DEV}\nrestore: {{photo: recipe.yaml}}", "recipe.yaml is no picture"),
        (f"calibration: {DEV}\nvalidate: {{photos: {DEV}, conditions: [fog]}}", "condition 'fog'"),
        (f"calibration: {DEV}\nvalidate: {{photos: {DEV}, teacher: t.safetensors}}", "t.safetensors"),
        ("calibration: .", "no picture in"),
    ],
)
def test_what_a_later_stage_cannot_read_stops_a_run_before_its_first(tmp_path: Path, sections: str, said: str) -> None:
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
    (tmp_path / TRAINED[0]).touch()
    with pytest.raises(InputError, match=r"run\.json is damaged"):
        add_expert_command("sand", tmp_path / "pairs", "weather", None, EXPERT_SCHEDULE, tmp_path, Console(quiet=True))


def test_a_folder_in_which_nothing_was_trained_yet_takes_another_run(tmp_path: Path) -> None:
    recipe, photos, out = tmp_path / "recipe.yaml", tmp_path / "photos", tmp_path / "out"
    shutil.copytree(PHOTOS / "dev", photos)
    (photos / "bad.png").write_text("no picture")
    text = (
        f"distill: {{size: nano, photos: {photos}, schedule: {{steps: 1, batch: 8, patch: 32, workers: 0, seed: %d}}}}"
    )
    recipe.write_text(text % 0)
    with pytest.raises(InputError, match=r"bad\.png"):
        distill_command(recipe, out, None, None, Console(quiet=True))
    assert (out / RUN).exists()
    (photos / "bad.png").unlink()
    recipe.write_text(text % 1)
    assert distill_command(recipe, out, None, None, Console(quiet=True)).exists()
    recipe.write_text(text % 2)
    with pytest.raises(InputError, match="another schedule"):
        distill_command(recipe, out, None, None, Console(quiet=True))
