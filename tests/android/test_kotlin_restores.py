"""The demo's restorer on the JVM against the Python runtime, with the same `.pte`: same decisions, same bytes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from burnish.device_tests.perf import Perf
from burnish.runtime import Restoration, Restorer
from burnish.runtime.bundle import EMBEDDED, Bundle
from burnish.runtime.pictures import read
from kotlin import ROOT, Tools
from numpy.typing import NDArray

PROGRAM = "executorch-xnnpack-int8"
# Room for a few tiles' features alone, so that some are given up and encoded again.
FEATURE_MEMORY_MB = 20.0
TIMELESS = {"min_gain": -1.0}


@dataclass
class Picture:
    """What both languages are asked to restore."""

    name: str
    pixels: NDArray[np.uint8]
    policy: dict[str, Any]
    degradations: dict[str, float] | None = None
    exact: bool = True


@dataclass
class Answer:
    """What Kotlin gave."""

    pixels: NDArray[np.uint8]
    said: dict[str, Any] = field(default_factory=dict)


def photo(top: int, left: int, height: int, width: int, kind: str = "noise") -> NDArray[np.uint8]:
    """A part of a photograph, degraded."""
    pixels = read(ROOT / "recipes" / "photos" / "eval" / "kodim23.png").rgb[top : top + height, left : left + width]
    assert pixels.shape == (height, width, 3)
    rng = np.random.default_rng(height)
    degraded = {
        "noise": pixels + rng.normal(0, 0.1, pixels.shape),
        "haze": 0.5 * pixels + 0.4 + rng.normal(0, 0.02, pixels.shape),
        "dark": pixels**2 * 0.15,
        "clean": pixels,
    }[kind]
    return np.round(np.clip(degraded, 0, 1) * 255).astype(np.uint8)


def wide(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Beside its mirror image, so that there are many tiles."""
    return np.ascontiguousarray(np.concatenate([pixels, pixels[:, 260::-1]], axis=1))


@pytest.fixture(scope="session")
def pictures() -> list[Picture]:
    side = Bundle.open(EMBEDDED).manifest.tile
    return [
        Picture("tile", photo(40, 60, side, side), {"max_iterations": 3, "rollback": True} | TIMELESS),
        Picture(
            "views",
            photo(40, 60, side, side),
            {"max_iterations": 4, "min_iterations": 4, "rollback": False} | TIMELESS,
        ),
        Picture("hazy", photo(40, 60, side, side, "haze"), {"max_iterations": 4, "rollback": True}),
        Picture("dark", photo(10, 200, side, side, "dark"), {"max_iterations": 3, "rollback": False} | TIMELESS),
        Picture(
            "clean",
            photo(40, 60, side, side, "clean"),
            {"min_quality": 0.0, "min_iterations": 1, "rollback": True},
        ),
        Picture("small", photo(100, 200, 93, 61), {"max_iterations": 2, "rollback": False} | TIMELESS),
        Picture(
            "given",
            photo(40, 60, side, side),
            {"max_iterations": 2, "rollback": True} | TIMELESS,
            {"noise": 0.8, "detail": 0.3},
        ),
        Picture(
            "large",
            wide(photo(0, 0, 480, 500, "haze")),
            {"max_iterations": 3, "rollback": False} | TIMELESS,
            exact=False,
        ),
        Picture("surveyed", wide(photo(0, 0, 300, 500, "dark")), {"max_iterations": 2, "rollback": True}, exact=False),
    ]


def job(folder: Path, bundle: Path, pictures: list[Picture], **more: Any) -> dict[str, Any]:
    entries = []
    for picture in pictures:
        (folder / f"{picture.name}.in").write_bytes(picture.pixels.tobytes())
        height, width = picture.pixels.shape[:2]
        entry: dict[str, Any] = {
            "name": picture.name,
            "file": str(folder / f"{picture.name}.in"),
            "policy": picture.policy,
        }
        entry |= {"height": height, "width": width}
        if picture.degradations is not None:
            entry["degradations"] = picture.degradations
        entries.append(entry)
    return {
        "bundle": str(bundle),
        "program": PROGRAM,
        "feature_memory_mb": FEATURE_MEMORY_MB,
        "pictures": entries,
    } | more


def run(tools: Tools, folder: Path, content: dict[str, Any]) -> tuple[int, str]:
    (folder / "job.json").write_text(json.dumps(content))
    path = [tools.executorch_module, tools.executorch, tools.standins]
    done = tools.java(path, "RestoreOnJvmKt", folder / "job.json", folder, burnish_shim=tools.shim)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="session")
def kotlin(
    tools: Tools, pictures: list[Picture], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Answer], Path]:
    """All pictures restored by one process, and a short benchmark."""
    folder = tmp_path_factory.mktemp("jvm")
    status, said = run(tools, folder, job(folder, EMBEDDED, pictures, benchmark={"warm_up": 1, "runs": 5, "blocks": 2}))
    assert status == 0, said[-4000:]
    answers = {
        picture.name: Answer(
            np.frombuffer((folder / f"{picture.name}.rgb").read_bytes(), np.uint8).reshape(picture.pixels.shape),
            json.loads((folder / f"{picture.name}.json").read_text()),
        )
        for picture in pictures
    }
    return answers, folder


@pytest.fixture(scope="session")
def python(pictures: list[Picture]) -> dict[str, Restoration]:
    restorer = Restorer.load(
        EMBEDDED, backend="executorch", program=PROGRAM, threads=1, feature_memory_mb=FEATURE_MEMORY_MB
    )
    return {p.name: restorer.restore(p.pixels, degradations=p.degradations, **p.policy) for p in pictures}


NAMES = ["tile", "views", "hazy", "dark", "clean", "small", "given", "large", "surveyed"]


@pytest.mark.parametrize("name", NAMES)
def test_takes_the_same_decisions(
    kotlin: tuple[dict[str, Answer], Path], python: dict[str, Restoration], name: str
) -> None:
    said, expected = kotlin[0][name].said, python[name]
    assert [row[:3] for row in said["trace"]] == [[e.ran, e.tile, e.iteration] for e in expected.trace]
    assert (said["reason"], said["iteration"], said["tiles"]) == (
        expected.reason.value,
        expected.iteration,
        expected.tiles,
    )
    for (*_, quality, prospect, difference), event in zip(said["trace"], expected.trace, strict=True):
        assert quality == pytest.approx(event.quality, abs=1e-6)
        assert prospect == (event.prospect and pytest.approx(event.prospect._asdict(), abs=1e-6))
        assert difference == pytest.approx(event.difference, abs=1e-9)
    for mine, theirs in zip(said["steps"], expected.steps, strict=True):
        assert mine["gates"] == pytest.approx(theirs.gates, abs=1e-6)
        assert mine["degradations"] == pytest.approx(theirs.degradations, abs=1e-6)
        assert mine["quality"] == pytest.approx(theirs.quality, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_gives_the_same_picture(
    kotlin: tuple[dict[str, Answer], Path], python: dict[str, Restoration], pictures: list[Picture], name: str
) -> None:
    picture = next(p for p in pictures if p.name == name)
    mine, theirs = kotlin[0][name].pixels, python[name].pixels
    difference = np.abs(mine.astype(int) - theirs.astype(int)).max()
    assert difference <= (0 if picture.exact else 1)


def test_the_cases_reach_what_is_hard(python: dict[str, Restoration]) -> None:
    """Or else the comparison says little. "large" is encoded again since the weights see its haze and keep it upright."""
    calls = [event.ran for event in python["large"].trace]
    assert {"look", "encode", "recall", "refine"} <= set(calls)
    assert python["large"].tiles > 4
    assert [event.ran for event in python["surveyed"].trace[:3]] == ["look", "encode", "encode"]
    assert [event.ran for event in python["views"].trace] == ["encode", "refine", *["mirror", "refine"] * 3]
    assert any(result.iteration >= 2 for result in python.values())
    assert len({result.reason for result in python.values()}) > 1


def test_the_benchmark_writes_what_profile_reads(kotlin: tuple[dict[str, Answer], Path]) -> None:
    perf = Perf.model_validate_json((kotlin[1] / "perf.json").read_bytes())
    row = perf.devices[0].programs[0]
    assert (row.program, row.encode.runs) == (PROGRAM, 5)
    assert 0 < row.encode.least_ms <= row.encode.p50_ms <= row.encode.p90_ms <= row.encode.p99_ms
    assert row.iteration.mean_ms == pytest.approx(row.encode.mean_ms + row.refine.mean_ms, abs=1e-3)
    assert row.load_cold_ms > 0
    assert row.process_bytes > row.program_bytes > 0


def refused(tools: Tools, folder: Path, routing: dict[str, Any], program: bytes | None = None) -> str:
    """What a bundle with something else in its routing, and maybe as its program, is refused with."""
    manifest = json.loads((EMBEDDED / "bundle.json").read_text())
    manifest["routing"] |= routing
    entry = next(p for p in manifest["programs"] if p["target"] == "executorch-xnnpack")["files"][0]
    content = (EMBEDDED / entry["path"]).read_bytes() if program is None else program
    entry |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    bundle = folder / "broken.bundle"
    file = bundle / entry["path"]
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    status, said = run(tools, folder, job(folder, bundle, [], benchmark={"warm_up": 0, "runs": 1, "blocks": 1}))
    assert status == 2
    return next(line for line in said.splitlines() if "Exception: " in line)


def test_a_damaged_program_is_one_line(tools: Tools, tmp_path: Path) -> None:
    """With a manifest that fits, so that ExecuTorch itself has to refuse it."""
    assert f"ProgramException: {PROGRAM} does not load" in refused(tools, tmp_path, {}, b"no program" * 1000)


def test_a_program_without_a_specialist_is_one_line(tools: Tools, tmp_path: Path) -> None:
    said = refused(tools, tmp_path, {"specialists": ["snow"]})
    assert f"ProgramException: {PROGRAM} does not load" in said
    assert "refine_snow" in said
