"""The protocol, the measurement and its gate, the report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from burnish.device_tests.numerics import BASELINE
from burnish.device_tests.protocol import degraded, load_protocol
from burnish.device_tests.report import render, write_report
from burnish.device_tests.validate import Plan, measure
from burnish.runtime import Bundle, InputError
from burnish.runtime.pictures import Picture, write
from conftest import PHOTOS
from numpy.typing import NDArray


def test_the_protocol_is_what_it_was() -> None:
    protocol = load_protocol()
    assert protocol.sha256.startswith("7dfd208ca55a778a")
    groups = [c.group for c in protocol.conditions]
    assert (groups.count("clean"), groups.count("double"), groups.count("triple")) == (1, 8, 4)


def test_input_figures_can_be_reproduced() -> None:
    """A shipped picture degrades to the same bytes twice, near the stated input PSNR of its set."""
    protocol = load_protocol()
    from burnish.runtime.pictures import read

    path = PHOTOS / "eval" / "kodim23.png"
    assert protocol.set_of([path]) == "kodak24"
    clean = read(path).rgb
    condition = next(c for c in protocol.conditions if c.name == "noise-25")
    one, two = degraded(condition, path.name, clean), degraded(condition, path.name, clean)
    np.testing.assert_array_equal(one, two)
    psnr = -10 * np.log10(np.mean((one - clean) ** 2))
    assert psnr == pytest.approx(protocol.sets["kodak24"].input_psnr["noise-25"], abs=1.0)


@pytest.fixture(scope="module")
def small_photos(tmp_path_factory: pytest.TempPathFactory, photo: NDArray[np.float32]) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for index, top in enumerate((100, 220)):
        write(Picture(photo[top : top + 64, 180:244]), folder / f"{index}.png")
    return folder


def test_a_gate_passes_and_fails(bundle_path: Path, small_photos: Path, tmp_path: Path) -> None:
    plan = Plan(data=small_photos, conditions=("clean", "noise-25", "haze-heavy"), iterations=2, max_drop_db=30.0)
    numerics = measure(Bundle.open(bundle_path), plan, None, lambda *_: None)
    assert numerics.passed
    assert set(numerics.candidates) == {
        BASELINE,
        "onnx-fp32",
        "executorch-xnnpack-fp32",
        "executorch-xnnpack-int8",
        "tensorrt-int8",
    }
    for iteration in (1, 2):
        baseline = numerics.row("noise-25", BASELINE, iteration)
        program = numerics.row("noise-25", "onnx-fp32", iteration)
        assert baseline is not None
        assert program is not None
        assert program.psnr == pytest.approx(baseline.psnr, abs=0.05)
    strict = measure(Bundle.open(bundle_path), plan.model_copy(update={"max_drop_db": 0.0}), None, lambda *_: None)
    assert not strict.passed
    assert "FAILED" in strict.table()
    write_report(numerics, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "gate passed" in page
    assert page.count("data:image/jpeg") == 4
    assert "<svg" in page
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )
    assert "gate failed" in render(strict)


def test_given_pairs(bundle_path: Path, small_photos: Path, tmp_path: Path, photo: NDArray[np.float32]) -> None:
    for name in ("clean", "degraded"):
        (tmp_path / name).mkdir()
    crop = photo[100:164, 180:244]
    write(Picture(crop), tmp_path / "clean" / "a.png")
    write(Picture(crop * 0.5), tmp_path / "degraded" / "a.png")
    plan = Plan(data=tmp_path, programs=("onnx-fp32",), iterations=1, max_drop_db=1.0)
    numerics = measure(Bundle.open(bundle_path), plan, None, lambda *_: None)
    assert numerics.conditions == ["pairs"]
    (tmp_path / "degraded" / "a.png").rename(tmp_path / "degraded" / "b.png")
    with pytest.raises(InputError, match="namesake"):
        measure(Bundle.open(bundle_path), plan, None, lambda *_: None)


def test_unknown_conditions_are_named(bundle_path: Path, small_photos: Path) -> None:
    with pytest.raises(InputError, match="hail"):
        measure(Bundle.open(bundle_path), Plan(data=small_photos, conditions=("hail",)), None, lambda *_: None)
