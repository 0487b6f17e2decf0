"""Every conformance case; Kotlin and Swift run the same files."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import Any

import pytest
from conformance import FOLDER, PLAYERS, Case, load

CASES = [
    pytest.param(play, case, load(name)["tolerance"], id=f"{name}: {case['name']}")
    for (name, section), play in PLAYERS.items()
    for case in load(name)[section]
]
LEAST = {("controller", "cases"): 40, ("routing", "cases"): 15, ("tiles", "plans"): 15, ("tiles", "orders"): 15}


def same(got: Any, expected: Any, tolerance: dict[str, float]) -> bool:
    """Exact but for numbers, which may differ by the file's relative or absolute tolerance."""
    if isinstance(expected, dict):
        return got.keys() == expected.keys() and all(same(got[k], expected[k], tolerance) for k in expected)
    if isinstance(expected, list):
        return len(got) == len(expected) and all(same(a, b, tolerance) for a, b in zip(got, expected, strict=True))
    if isinstance(expected, float):
        return math.isclose(got, expected, rel_tol=tolerance["relative"], abs_tol=tolerance["absolute"])
    return got == expected


@pytest.mark.parametrize(("play", "case", "tolerance"), CASES)
def test_conformance(play: Any, case: Case, tolerance: dict[str, float]) -> None:
    got = play(case)
    assert same(got, case["expected"], tolerance), f"{got}\nexpected {case['expected']}"


def test_there_are_enough_cases_of_different_names() -> None:
    for (name, section), least in LEAST.items():
        names = [case["name"] for case in load(name)[section]]
        assert len(names) >= least
        assert len(set(names)) == len(names)


def test_the_files_hold_what_their_maker_writes(tmp_path: Any) -> None:
    """Cases may be added behind them by hand."""
    subprocess.run([sys.executable, FOLDER / "make.py", tmp_path], check=True, cwd=tmp_path)
    for path in tmp_path.glob("*.json"):
        made, there = json.loads(path.read_text()), json.loads((FOLDER / path.name).read_text())
        assert {
            key: value[: len(made[key])] if isinstance(value, list) else value for key, value in there.items()
        } == made
