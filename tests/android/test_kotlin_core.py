"""`android_demo/core` by its own JUnit tests, on the conformance files that Python and Swift play too."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from kotlin import CONFORMANCE, Tools

PACKAGE = "dev.burnish.core"


def run(tools: Tools, test: str, cases: Path = CONFORMANCE) -> subprocess.CompletedProcess[str]:
    path = [tools.core_tests, tools.junit, tools.hamcrest]
    return tools.java(path, "org.junit.runner.JUnitCore", f"{PACKAGE}.{test}", burnish_conformance=cases)


def passed(done: subprocess.CompletedProcess[str]) -> int:
    """How many tests passed; all must."""
    found = re.search(r"^OK \((\d+) tests?\)", done.stdout, re.MULTILINE)
    assert found is not None, done.stdout[-4000:] + done.stderr[-2000:]
    return int(found[1])


def count(folder: Path) -> int:
    files = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    return sum(len(section) for file in files for section in file.values() if isinstance(section, list))


@pytest.mark.parametrize("test", ["BundleTest", "RestorerTest", "PerfTest"])
def test_unit_tests_pass(tools: Tools, test: str) -> None:
    assert passed(run(tools, test)) > 2


def test_every_conformance_case_passes(tools: Tools) -> None:
    assert passed(run(tools, "ConformanceTest")) == count(CONFORMANCE)


@pytest.mark.parametrize("right", [True, False])
def test_a_new_case_is_played_without_a_change(tools: Tools, tmp_path: Path, right: bool) -> None:
    folder = Path(shutil.copytree(CONFORMANCE, tmp_path / "conformance"))
    file = folder / "controller.json"
    content = json.loads(file.read_text())
    case = next(c for c in content["cases"] if c["expected"]["reason"] == "iterations")
    expected = case["expected"] if right else case["expected"] | {"reason": "budget"}
    content["cases"].append(case | {"name": "one more", "expected": expected})
    file.write_text(json.dumps(content))
    done = run(tools, "ConformanceTest", folder)
    if right:
        assert passed(done) == count(CONFORMANCE) + 1
    else:
        assert "one more" in done.stdout
        assert re.search(r"Failures: 1\b", done.stdout)
