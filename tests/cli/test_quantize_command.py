"""`burnish quantize --max-drop-db`: programs of every target are judged, and what stays in float is told with what it costs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from burnish.cli.quantisation import PROGRAMS, judges, show_found
from burnish.distill.student import Student
from burnish.distill.weights import Trained
from burnish.quantize import core
from burnish.quantize.calibration import Samples
from burnish.quantize.config import QuantizeConfig
from burnish.quantize.search import Found
from burnish.quantize.sensitivity import Sensitivity
from burnish.quantize.stage import TARGETS
from rich.console import Console
from shared import PHOTOS
from test_cli import burnish

LAYER = Sensitivity("refiner.level3.0.conv1", 0.2, 36_928, 40_000_000)


def test_of_libraries_nothing_is_heard(tmp_path: Path) -> None:
    common = ["--calibration", PHOTOS / "dev", "--tile", "64", "--pictures", "1", "--target", "xnnpack"]
    done = burnish("quantize", "nano", "graphs", *common, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "quantised graphs: graphs\n")


@pytest.mark.parametrize(("name", "limit"), [("coreml", -50), *((name, 50) for name in PROGRAMS)])
def test_every_target_is_judged(
    name: str, limit: int, student: Student, samples: Samples, quantize_config: QuantizeConfig
) -> None:
    graphs = core.quantize(student, 64, TARGETS[name], samples, quantize_config)
    report = judges(Trained(student), 64, PHOTOS / "eval", limit)[name](graphs)
    assert report.passed == (limit > 0)


def told(name: str, found: Found, student: Student) -> str:
    console = Console(record=True, width=300)
    show_found(console, Trained(student), 64, name, found)
    return console.export_text()


def test_what_stays_in_float_is_told_with_what_it_costs(
    student: Student, samples: Samples, quantize_config: QuantizeConfig
) -> None:
    plain = core.quantize(student, 64, TARGETS["xnnpack"], samples, quantize_config)
    kept = quantize_config.model_copy(update={"left_in_float": (*quantize_config.left_in_float, LAYER.layer)})
    mixed = core.quantize(student, 64, TARGETS["xnnpack"], samples, kept)
    line = told("xnnpack", Found(mixed, (LAYER,), True, 3, plain), student)
    assert f"xnnpack: passes with {LAYER.layer} in float: 108 KB more, 40 M multiply-adds, " in line
    times = re.search(r"([\d.]+) ms an iteration of a tile here instead of ([\d.]+)", line)
    assert times is not None
    assert min(map(float, times.groups())) > 0


@pytest.mark.parametrize("name", ["coreml", "tensorrt"])
def test_no_time_is_told_of_what_a_stand_in_executes(name: str, student: Student) -> None:
    assert told(name, Found({}, (LAYER,), True, 3, {}), student).strip().endswith("time unmeasured")


def test_where_nothing_helps_training_is_named(student: Student) -> None:
    assert "--train-minutes" in told("xnnpack", Found({}, (), False, 6, {}), student)
