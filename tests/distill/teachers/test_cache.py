"""Trajectories on disk: the same files after a kill, refused when they are others, and what a student learns from them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from burnish.cli.main import app
from burnish.distill.data import Mixture, Photographs, fingerprint
from burnish.distill.distillation import DistillationObjective, Weights, match_rounds, ranking_loss
from burnish.distill.recipe import Schedule
from burnish.distill.student import SIZES, Student
from burnish.distill.teachers import cache as caches
from burnish.distill.teachers.cache import (
    CachedTrajectories,
    Manifest,
    TeacherProducer,
    begin_cache,
    digest,
    launch,
    read_manifest,
    write_cache,
)
from burnish.distill.teachers.folder import FolderTrajectories
from burnish.distill.teachers.protocol import Teacher, origin
from burnish.distill.teachers.registry import create
from burnish.distill.training import train
from burnish.distill.weights import read_student, save_teacher
from burnish.runtime.errors import InputError
from burnish.runtime.pictures import Picture, write
from burnish.runtime.routing import Routing
from burnish.runtime.tree import LEAVES
from numpy.typing import NDArray
from shared import PHOTOS
from typer.testing import CliRunner

PHOTO = next((PHOTOS / "dev").glob("*.jpg"))
SOURCE = Photographs(PHOTOS / "train", Mixture(), 32, 0)


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    torch.manual_seed(0)
    return create("sipl-restormer", "tiny").eval()


def manifest(teacher: Teacher, samples: int, **changes: Any) -> Manifest:
    settings: dict[str, Any] = dict(
        teacher=origin(teacher.name, teacher.card),
        weights=None,
        weights_sha256=digest(teacher),
        settings=teacher.settings.model_dump(),
        rounds=2,
        feature_width=teacher.feature_width,
        samples=samples,
        patch=32,
        seed=0,
        mixture=SOURCE.mixture,
        data="train",
        data_sha256=fingerprint(SOURCE.folder),
    )
    return Manifest(**(settings | changes))


def fill(teacher: Teacher, samples: int, out: Path, progress: Any = lambda *_: None) -> None:
    begin_cache(manifest(teacher, samples), out)
    producer = TeacherProducer(teacher, SOURCE, 2, torch.device("cpu"))
    write_cache(producer, manifest(teacher, samples), out, launch(1), progress)


@pytest.fixture(scope="module")
def cache(teacher: Teacher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cache") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(caches, "SHARD", 8)
        fill(teacher, 20, out)
    return out


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "SHARD", 8)


def test_a_killed_run_writes_the_same_files(teacher: Teacher, cache: Path, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill(done: int, total: int) -> None:
        raise Killed

    for _ in range(2):
        with pytest.raises(Killed):
            fill(teacher, 20, tmp_path / "parts", kill)
    with pytest.raises(InputError, match="lacks 2 shards"):
        CachedTrajectories(tmp_path / "parts", 32, 0).samples(0, 1)
    fill(teacher, 20, tmp_path / "parts")
    names = sorted(path.name for path in cache.iterdir())
    assert names == ["cache.json", *(f"shard-{n:05d}.safetensors" for n in range(3))]
    for name in names:
        assert (cache / name).read_bytes() == (tmp_path / "parts" / name).read_bytes(), name


def test_other_settings_are_refused(teacher: Teacher, cache: Path) -> None:
    torch.manual_seed(1)
    namesake = create("sipl-restormer", "tiny").eval()
    noise = Mixture(members=(0, 1), leaves={"noise": 1})
    for other, named in (
        (manifest(teacher, 20, seed=1), "seed"),
        (manifest(teacher, 20, mixture=noise), "mixture"),
        (manifest(namesake, 20), "weights_sha256"),
    ):
        with pytest.raises(InputError, match=f"a cache with other {named} "):
            begin_cache(other, cache)
    with pytest.raises(InputError, match="asks for 64²"):
        CachedTrajectories(cache, 64, 0).samples(0, 1)
    with pytest.raises(InputError, match="not a cache"):
        CachedTrajectories(cache.parent, 32, 0).samples(0, 1)


def test_a_folder_in_which_nothing_was_cached_yet_takes_another_cache(teacher: Teacher, tmp_path: Path) -> None:
    begin_cache(manifest(teacher, 20, seed=1), tmp_path)
    fill(teacher, 1, tmp_path)
    assert read_manifest(tmp_path).seed == 0


def test_samples_are_what_the_teacher_saw_and_did(teacher: Teacher, cache: Path) -> None:
    source = CachedTrajectories(cache, 32, 3)
    epoch = source.samples(0, 40)
    rest = source.samples(25, 40)
    torch.testing.assert_close(epoch[25].degraded, rest[0].degraded, rtol=0, atol=0)
    degraded = {tuple(epoch[i].degraded.flatten().tolist()) for i in range(20)}
    assert len(degraded) == 20  # every sample once an epoch
    sample = epoch[4]
    trajectory = teacher.restore(sample.degraded[None], 2)
    for turn, step in enumerate(trajectory):
        assert (sample.rounds[turn] - step.picture[0]).abs().max() <= 0.5 / 255 + 1e-6
        assert step.features is not None
        torch.testing.assert_close(sample.features[turn], step.features[0], rtol=5e-3, atol=5e-3)


def test_a_damaged_shard_is_named(cache: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(cache, damaged)
    for shard in damaged.glob("shard-*"):
        shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(InputError, match=r"shard-0000\d\.safetensors is damaged; delete it"):
        CachedTrajectories(damaged, 32, 0).samples(0, 1)[0]


def test_a_student_learns_from_a_cache(cache: Path, teacher: Teacher, tmp_path: Path) -> None:
    torch.manual_seed(0)
    objective = DistillationObjective(
        Student(SIZES["nano"]), Weights(teacher=1.0), Routing(), feature_width=teacher.feature_width
    )
    schedule = Schedule(steps=12, batch=4, patch=32, workers=0, warmup=2, log_seconds=0.0)
    rows: list[dict[str, float]] = []
    train(objective, schedule, CachedTrajectories(cache, 32, 0), tmp_path, rows.append)
    assert all(row["teacher"] > 0 and row["tokens"] > 0 for row in rows)
    assert rows[-1]["tokens"] < rows[0]["tokens"]


def burnish(*arguments: object) -> None:
    result = CliRunner().invoke(app, ["teacher", *map(str, arguments)])
    assert result.exit_code == 0, result.output


def test_a_folder_of_somebody_elses_rounds_becomes_a_cache(tmp_path: Path, photo: NDArray[np.float32]) -> None:
    theirs, cache = tmp_path / "theirs", tmp_path / "cache"
    for name in ("one", "two"):
        (theirs / name).mkdir(parents=True)
        for turn in range(3):
            dimmed = np.clip(photo[:64, :80] * (0.5 + 0.2 * turn), 0, 1)
            write(Picture(dimmed), theirs / name / f"round_{turn}.png")
    (theirs / "one" / "meta.json").write_text(json.dumps({"degradation": {"low_light": 0.6}}))
    burnish("cache", "folder", theirs, cache, "--samples", 10, "--patch", 48)
    sample = CachedTrajectories(cache, 48, 0).samples(0, 10)[0]
    assert sample.rounds.shape == (2, 3, 48, 48)
    torch.testing.assert_close(sample.clean, sample.rounds[-1])
    assert float(sample.degraded.mean()) < float(sample.rounds[0].mean()) < float(sample.rounds[1].mean())
    with pytest.raises(InputError, match=r"got 80×64 pixels; .* at least 96², or a smaller --patch"):
        FolderTrajectories(theirs, 96, 0).batch(0, 1)


def test_the_round_of_the_best_quality_stands_for_the_truth(tmp_path: Path, photo: NDArray[np.float32]) -> None:
    one = tmp_path / "theirs" / "one"
    one.mkdir(parents=True)
    for turn in range(4):
        write(Picture(photo[:64, :80] * np.float32(0.2 + 0.2 * turn)), one / f"round_{turn}.png")
    meta, source = one / "meta.json", FolderTrajectories(tmp_path / "theirs", 48, 0)
    for quality, best in (([0.5, 0.9, 0.7], 2), ([0.9, 0.5, 0.7], 1), (None, 3)):
        meta.write_text(json.dumps({} if quality is None else {"quality": quality}))
        batch = source.batch(0, 1)
        torch.testing.assert_close(batch.clean, batch.rounds[:, best - 1])
    meta.write_text(json.dumps({"quality": [0.5, 0.9]}))
    with pytest.raises(InputError, match="quality has 2 numbers; expected 3, one a round"):
        source.batch(0, 1)
    for damaged in ("{", "[1]", '{"quality": "high"}', '{"degradation": {"smog": 1}}'):
        meta.write_text(damaged)
        with pytest.raises(InputError, match=r'expected \{"degradation": \{leaf: severity\}'):
            source.batch(0, 1)


def test_run_writes_what_the_folder_teacher_reads(teacher: Teacher, tmp_path: Path) -> None:
    weights, out = tmp_path / "t.safetensors", tmp_path / "out"
    save_teacher(teacher, "tiny", weights)
    burnish("run", "sipl-restormer", PHOTO, out / "one", "--weights", weights)
    burnish("cache", "folder", out, tmp_path / "cache", "--samples", 2)


def test_a_place_for_no_rounds_is_refused_before_the_teacher_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    arguments = ["teacher", "run", "promptir", str(PHOTO), str(tmp_path / "file"), "--weights", "none"]
    error = CliRunner().invoke(app, arguments).exception
    assert isinstance(error, InputError)
    assert "file is no writable folder" in str(error)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["cache", "smog", PHOTOS / "dev", "out"], "unknown teacher 'smog'; .*, rar, folder$"),
        (["run", "sipl-student", PHOTO, "out", "--base", "dev"], "holds all of its model; leave out --base dev"),
        (["run", "promptir", PHOTO, "out", "--weights", PHOTO], "expected a checkpoint that torch.save wrote$"),
    ],
)
def test_what_a_teacher_cannot_take_is_named(
    arguments: list[object], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    error = CliRunner().invoke(app, ["teacher", *map(str, arguments)]).exception
    assert isinstance(error, InputError)
    assert re.search(said, str(error))


def test_info_prints_what_was_published_beside_what_is() -> None:
    text = CliRunner().invoke(app, ["teacher", "info", "promptir"]).stdout
    assert "parameters: 35.59 M (published: 35.59 M)" in text
    assert "plain: 172.7 G (published: 172.7 G)" in text
    assert "encoder features: 50.6 G\n" in text  # of which nothing was published
    assert "rounds: 1 as published" in text
    assert "NO commercial use" in text


def test_info_and_list_speak_json() -> None:
    row = json.loads(CliRunner().invoke(app, ["teacher", "info", "sipl-nafnet", "--json"]).stdout)
    assert row["parameters"] > 17e6
    assert set(row["macs"]) == {"plain", "encoder features", "privileged"}
    names = {row["name"] for row in json.loads(CliRunner().invoke(app, ["teacher", "list", "--json"]).stdout)}
    assert {"sipl-promptir", "uir-lora", "unirestorer", "rar"} <= names


@pytest.mark.parametrize(
    ("rounds", "iterations", "match", "expected"),
    [
        (2, 2, "skip", [0, 1]),
        (4, 2, "skip", [0, 1]),
        (4, 2, "merge", [1, 3]),
        (5, 2, "merge", [2, 4]),
        (1, 3, "merge", [0, 0, 0]),
        (2, 3, "skip", [0, 1, 1]),
    ],
)
def test_rounds_meet_iterations(rounds: int, iterations: int, match: Any, expected: list[int]) -> None:
    assert match_rounds(rounds, iterations, match) == expected


def test_ranking_punishes_the_wrong_order_alone() -> None:
    low, high, better = torch.tensor([[0.4]]), torch.tensor([[0.5]]), torch.tensor([[0.05]])
    assert ranking_loss(low, high, better) < 0.01 < 1 < ranking_loss(high, low, better)
    assert ranking_loss(low, high, torch.zeros(1, 1)) == 0


@pytest.mark.parametrize(
    ("name", "mixture", "said"),
    [
        ("sipl-student", "{wide: 0.5}", "mixture.wide is 0.5; expected 0"),
        ("folder", "{mild: 2}", "those of a folder are degraded already"),
        ("sipl-student", None, "has no distill section"),
    ],
)
def test_a_mixture_that_no_cache_can_hold_is_refused(name: str, mixture: str | None, said: str, tmp_path: Path) -> None:
    section = f"distill: {{photos: photos, mixture: {mixture}}}" if mixture else ""
    (tmp_path / "recipe.yaml").write_text(f"version: 1\n{section}\n")
    arguments = ["teacher", "cache", name, str(PHOTOS / "train"), str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*arguments, "--mixture", str(tmp_path / "recipe.yaml")])
    assert isinstance(done.exception, InputError)
    assert said in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_a_cache_holds_the_mixture_of_a_recipe_and_names_its_photographs_in_what_learns(tmp_path: Path) -> None:
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "cache"
    recipe.write_text(
        f"""
version: 1
distill:
  size: nano
  photos: {PHOTOS / "dev"}
  cache: cache
  mixture: {{members: [0, 1], leaves: {{noise: 1}}}}
  schedule: {{steps: 1, batch: 2, patch: 32, workers: 0, warmup: 1}}
"""
    )
    arguments = ["--samples", "4", "--patch", "32", "--rounds", "1", "--mixture", str(recipe)]
    done = CliRunner().invoke(app, ["teacher", "cache", "sipl-student", str(PHOTOS / "train"), str(out), *arguments])
    assert done.exit_code == 0, done.output
    noise = LEAVES.index("noise")
    for sample in (CachedTrajectories(out, 32, 0).samples(0, 4)[index] for index in range(4)):
        assert sample.severities[noise] > 0
        assert int((sample.severities > 0).sum()) == 1
    done = CliRunner().invoke(app, ["distill", str(recipe), "--out", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    provenance = read_student(tmp_path / "run" / "student.safetensors").provenance
    assert provenance.data == ("train",)
    assert [teacher.name for teacher in provenance.teachers] == ["sipl-student"]
