"""TensorRT's session and engine cache against stand-ins for TensorRT and CUDA (fake_cuda.py): order, addresses, cache."""

from __future__ import annotations

import gc
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from burnish.runtime import Bundle, backends
from burnish.runtime import engines as module
from burnish.runtime.backends.tensorrt import TensorRTSession
from burnish.runtime.engines import STAMP, engines, jetpack_release
from burnish.runtime.errors import BackendError
from burnish.runtime.routing import Routing, gate_tensor, given_gates
from fake_cuda import FakeCuda, FakeTensorRT
from numpy.typing import NDArray

PROGRAMS = ["tensorrt-fp16", "tensorrt-int8"]


class Bench:
    """The fakes in place of both libraries."""

    def __init__(self, patch: pytest.MonkeyPatch, cache: Path) -> None:
        self.cuda = FakeCuda()
        self.trt = FakeTensorRT(self.cuda)
        patch.setenv("XDG_CACHE_HOME", str(cache))
        patch.setattr(module, "_LOGS", {})
        for target in (module, sys.modules[TensorRTSession.__module__]):
            patch.setattr(target, "library", lambda *_: self.trt)
            patch.setattr(target, "cuda_runtime", lambda: self.cuda)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bench:
    return Bench(monkeypatch, tmp_path / "cache")


def folder(bundle: Path, program: str) -> Path:
    opened = Bundle.open(bundle)
    return opened.program_folder(opened.program(program))


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("records", [True, False])
def test_sessions_compute_what_onnxruntime_does(
    bench: Bench, bundle_path: Path, photo: NDArray[np.float32], program: str, records: bool
) -> None:
    bench.cuda.records = records
    place = folder(bundle_path, program)
    session, expected = TensorRTSession(place), backends.load_session("onnxruntime", place, 1)
    first, second = (np.ascontiguousarray(photo[y : y + 64, 90:154].transpose(2, 0, 1)[None]) for y in (100, 200))
    rank = Bundle.open(bundle_path).manifest.student.rank
    gates = gate_tensor(Routing(), given_gates(Routing(), {"rain": 0.5}), rank)
    results: list[Any] = []
    for runner in (session, expected):
        original, estimate = runner.encode(first), runner.encode(second)
        restored, quality = runner.refine(second, original, estimate, gates)
        again, _ = runner.refine(restored, original, runner.encode(restored), gates)
        results.append((original.logits, restored, quality, again))
    for got, wanted in zip(*results, strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-6)
    assert (bench.cuda.launches > 0) == records


def test_device_memory_is_given_out_again(bench: Bench, bundle_path: Path) -> None:
    session = TensorRTSession(folder(bundle_path, "tensorrt-fp16"))
    image = np.zeros((1, 3, 64, 64), np.float32)
    for _ in range(3):
        session.encode(image)
    allocations = bench.cuda.allocations
    for _ in range(20):
        session.encode(image)
    assert bench.cuda.allocations == allocations


def test_memory_is_freed_with_the_session_and_not_before_its_tensors(bench: Bench, bundle_path: Path) -> None:
    session: Any = TensorRTSession(folder(bundle_path, "tensorrt-fp16"))
    encoded = session.encode(np.zeros((1, 3, 64, 64), np.float32))
    assert bench.cuda.memory
    del session
    gc.collect()
    assert bench.cuda.memory
    del encoded
    gc.collect()
    assert not bench.cuda.memory


def test_engines_are_built_once(bench: Bench, bundle_path: Path) -> None:
    place = folder(bundle_path, "tensorrt-int8")
    said: list[str] = []
    first = engines(place, progress=said.append)
    assert engines(place, progress=said.append) == first
    assert bench.trt.builds == 3  # every method, once
    assert said == ["no engine yet; building for tensorrt 10.3.0, compute capability 8.7"]
    stamp = json.loads((first / STAMP).read_text())
    assert stamp["machine"] == ["tensorrt", "10.3.0", "8.7", "none"]


CHANGES: dict[str, tuple[Callable[[Bench, Path], object], str]] = {
    "version": (lambda bench, _: setattr(bench.trt, "__version__", "11.4.0"), "version 10.3.0, this machine has 11.4"),
    "gpu": (lambda bench, _: setattr(bench.cuda, "capability", (8, 9)), "compute_capability 8.7, .* has 8.9"),
    "damaged": (lambda _, place: (place / "refine.engine").write_bytes(b"cut"), "refine.engine is damaged"),
    "missing": (lambda _, place: (place / "encode.engine").unlink(), "encode.engine is damaged"),
    "stamp": (lambda _, place: (place / STAMP).write_text("{"), "cannot be read"),
    "format": (
        lambda _, place: (place / STAMP).write_text((place / STAMP).read_text().replace("machine", "host")),
        "cannot be read",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_stale_engine_is_built_again_and_the_reason_said(bench: Bench, bundle_path: Path, change: str) -> None:
    place = folder(bundle_path, "tensorrt-int8")
    act, reason = CHANGES[change]
    act(bench, engines(place))
    said: list[str] = []
    engines(place, progress=said.append)
    assert bench.trt.builds == 6
    assert re.search(reason, said[0])
    engines(place, progress=said.append)
    assert len(said) == 1


def test_what_no_parser_reads_is_one_error_and_leaves_nothing(bench: Bench, tmp_path: Path) -> None:
    for name in ("encode", "refine"):
        (tmp_path / f"{name}.onnx").write_bytes(b"text")
    with pytest.raises(BackendError, match=r"cannot parse .*encode\.onnx: not ONNX"):
        engines(tmp_path, tmp_path / "engines")
    assert not (tmp_path / "engines").exists() or not list((tmp_path / "engines").iterdir())


def test_jetpack_release(tmp_path: Path) -> None:
    file = tmp_path / "nv_tegra_release"
    assert jetpack_release(file) == "none"
    file.write_text("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n")
    assert jetpack_release(file) == "L4T 36.4.3"


def test_without_libraries_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r"JetPack.*on x86: pip install 'burnish\[tensorrt\]'"):
        engines(tmp_path)


def test_the_real_runtime_library_names_a_missing_driver(monkeypatch: pytest.MonkeyPatch, bundle_path: Path) -> None:
    pytest.importorskip("cuda.bindings.runtime", reason="burnish[tensorrt-rtx] is not installed")
    if not backends.available("tensorrt"):
        pytest.skip("burnish[tensorrt-rtx] is not installed")
    runtime: ModuleType = module.cuda_runtime()
    if int(runtime.cudaGetDeviceCount()[0]) == 0:
        pytest.skip("this machine has a GPU")
    with pytest.raises(BackendError, match=r"CUDA: cudaError|no CUDA device"):
        backends.load_session("tensorrt", folder(bundle_path, "tensorrt-fp16"))
