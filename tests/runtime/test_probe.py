"""`auto` measures once, remembers, and can say why."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from burnish.runtime import Bundle, Restorer, backends
from burnish.runtime.probe import Row, cache_folder, measure, pick

TWO = {"onnxruntime": ("onnx-fp32",), "openvino": ("onnx-fp32",)}


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two candidates, and nothing remembered."""
    if not backends.available("openvino"):
        pytest.skip("needs a second backend: pip install 'burnish[openvino]'")
    monkeypatch.setattr(backends, "BACKENDS", TWO)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.mark.usefixtures("two")
def test_it_is_measured_once(onnx_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.open(onnx_bundle)
    first = pick(bundle, threads=1)
    assert first.reason.startswith("fastest here")
    assert all(name in first.reason for name in TWO)

    def not_again(*_: object, **__: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(subprocess, "run", not_again)
    assert pick(bundle, threads=1) == first
    assert Restorer.load(onnx_bundle, threads=1).chosen_because == first.reason


@pytest.mark.usefixtures("two")
def test_the_fastest_with_loading_wins(onnx_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Row(backend="onnxruntime", program="onnx-fp32", load_ms=10, encode_ms=20, refine_ms=20)
    quick = Row(backend="openvino", program="onnx-fp32", load_ms=900, encode_ms=5, refine_ms=5)
    heavy = quick.model_copy(update={"load_ms": 60_000.0})
    broken = quick.model_copy(update={"failed": "crashed"})
    bundle = Bundle.open(onnx_bundle)
    for second, winner in ((quick, "openvino"), (heavy, "onnxruntime"), (broken, "onnxruntime")):
        rows = {"onnxruntime": slow, "openvino": second}
        monkeypatch.setattr("burnish.runtime.probe._measure_apart", lambda _b, name, *_, rows=rows: rows[name])
        for file in cache_folder().glob("*.json"):
            file.write_text('{"rows": "damaged"}')  # and is measured again
        assert pick(bundle).backend == winner


def test_what_was_asked_for_is_not_measured(onnx_bundle: Path) -> None:
    choice = pick(Bundle.open(onnx_bundle), "onnxruntime")
    assert (choice.backend, choice.reason) == ("onnxruntime", "onnxruntime was asked for")


def test_a_candidate_that_cannot_load_says_so(onnx_bundle: Path, tmp_path: Path) -> None:
    assert measure(tmp_path, "onnxruntime", "onnx-fp32", 1).failed
    assert not measure(onnx_bundle, "onnxruntime", "onnx-fp32", 1).failed


def test_providers_that_this_build_lacks_are_not_offered() -> None:
    import onnxruntime

    there = onnxruntime.get_available_providers()
    assert backends.available("onnxruntime:cuda") == ("CUDAExecutionProvider" in there)
    assert backends.available("onnxruntime:xnnpack") == ("XnnpackExecutionProvider" in there)


@pytest.mark.usefixtures("two")
def test_what_failed_is_measured_again_after_a_day(onnx_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = {"openvino": "out of memory"}

    def measured(_: Bundle, name: str, program: str, *__: object) -> Row:
        return Row(backend=name, program=program, load_ms=1, encode_ms=1, refine_ms=1, failed=failing.get(name, ""))

    monkeypatch.setattr("burnish.runtime.probe._measure_apart", measured)
    bundle = Bundle.open(onnx_bundle)
    assert "out of memory" in pick(bundle).reason
    failing.clear()
    assert "out of memory" in pick(bundle).reason
    (table,) = cache_folder().glob("probe-*.json")
    for _ in range(2):  # what was measured well is remembered for good
        long_ago = time.time() - 2 * 86_400
        os.utime(table, (long_ago, long_ago))
        assert "out of memory" not in pick(bundle).reason
        failing["openvino"] = "out of memory"
