"""`burnish validate`: figures on stdout, exit status 1 where the gate fails, 2 where the input is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from burnish.cli.main import app
from burnish.runtime.errors import InputError
from burnish.runtime.pictures import Picture, write
from numpy.typing import NDArray
from shared import PHOTOS
from test_cli import burnish
from typer.testing import CliRunner


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--condition", "smog"], "unknown condition 'smog'; expected some of clean, "),
        (["--teacher", "smog"], "smog is not a file; expected a teacher's weights, or `embedded`"),
    ],
)
def test_an_unknown_name_is_refused_with_those_that_are_known(arguments: list[str], said: str, tmp_path: Path) -> None:
    common = ["validate", "--data", str(PHOTOS / "dev"), "--report", str(tmp_path)]
    error = CliRunner().invoke(app, [*common, *arguments]).exception
    assert isinstance(error, InputError)
    assert said in str(error)


def test_pairs_a_failing_gate_and_half_a_pair(tmp_path: Path, photo: NDArray) -> None:
    crop = photo[100:164, 180:244]
    pairs, report = tmp_path / "pairs", tmp_path / "report"
    for name, picture in (("clean", crop), ("degraded", crop * 0.5)):
        (pairs / name).mkdir(parents=True)
        write(Picture(picture), pairs / name / "a.png")
    common = ["validate", "--data", pairs, "--report", report, "--iterations", "1", "--program", "onnx-fp32"]
    done = burnish(*common, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["failures"] == []
    assert {row["condition"] for row in result["rows"]} == {"pairs", "all"}
    written = (report / "numerics.json").read_text()
    assert json.loads(written) == result

    failed = burnish(*common[:-1], "executorch-xnnpack-int8", "--max-drop-db", "0", "--max-delta-e", "0")
    assert failed.returncode == 1, failed.stderr
    assert "gate: FAILED by executorch-xnnpack-int8" in failed.stdout

    (pairs / "clean" / "a.png").unlink()
    wrong = burnish(*common)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: no picture in")
    assert len(wrong.stderr.splitlines()) == 1
