"""`burnish validate`: figures on stdout, exit status 1 where the gate fails, 2 where the input is wrong."""

from __future__ import annotations

import json
from pathlib import Path

from burnish.runtime.pictures import Picture, write
from numpy.typing import NDArray
from test_cli import burnish


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
