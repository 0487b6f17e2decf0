"""What every backend must do alike: one suite over each backend and program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from burnish.device_tests.eager import EagerSession
from burnish.distill.student import Student
from burnish.distill.weights import Trained
from burnish.runtime import Bundle, backends
from burnish.runtime.backends.base import Array, Session
from burnish.runtime.compatibility import matrix
from burnish.runtime.errors import BackendError
from burnish.runtime.methods import Methods
from burnish.runtime.routing import Routing, gate_tensor, given_gates
from burnish.runtime.run import mean_tokens
from numpy.typing import NDArray
from shared import BUNDLED

# Backend, program and how far (dB) it may be from the full-precision student; the untrained student is hard on int8.
PAIRS = [
    (trial.by, program, trial.least_psnr)
    for program, trials in matrix().programs.items()
    if program in [target.name for target in BUNDLED]
    for trial in trials
    if trial.how in ("backend", "reference evaluator")
]


# Says whether the stack that this thread handles signals on is, after a load that fails, what it was.
SIGNAL_STACK = """
import ctypes, faulthandler, sys
from pathlib import Path
from burnish.runtime import backends
from burnish.runtime.errors import BackendError
from burnish.runtime.methods import Methods

class Stack(ctypes.Structure):
    _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))

def now():
    stack = Stack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack)) == 0
    return stack.start, stack.size

faulthandler.enable()
before = now()
try:
    backends.load_session(sys.argv[1], Path(sys.argv[2]))
except BackendError as error:
    print("kept" if now() == before else f"{now()}, {before}", error)
"""


@pytest.fixture(params=PAIRS, ids=lambda pair: f"{pair[0]}:{pair[1]}")
def pair(request: pytest.FixtureRequest) -> tuple[str, str, float]:
    if not backends.available(request.param[0]):
        pytest.skip(f"{request.param[0]} is not installed")
    return request.param


@pytest.fixture
def session(bundle_path: Path, pair: tuple[str, str, float]) -> Session:
    bundle = Bundle.open(bundle_path)
    return backends.load(bundle, pair[0], bundle.program(pair[1]), threads=1)


@pytest.fixture
def tiles(photo: NDArray[np.float32]) -> tuple[Array, Array]:
    first, second = (np.ascontiguousarray(photo[y : y + 64, 90:154].transpose(2, 0, 1)[None]) for y in (100, 200))
    return first, second


@pytest.fixture
def gates(student: Student) -> Array:
    return gate_tensor(Routing(), given_gates(Routing(), {"rain": 0.5, "detail": 1.0}), student.config.rank)


def psnr(a: Array, b: Array) -> float:
    return float(-10 * np.log10(max(np.mean((np.asarray(a) - np.asarray(b)) ** 2), 1e-20)))


@pytest.mark.parametrize("method", ["refine", "refine_noise"])
def test_it_restores_what_the_student_restores(
    session: Session,
    pair: tuple[str, str, float],
    specialised: Trained,
    tiles: tuple[Array, Array],
    gates: Array,
    method: str,
) -> None:
    results = []
    for runner in (session, EagerSession(specialised.student)):
        original, estimate = (runner.encode(tile) for tile in tiles)
        results.append(runner.refine(tiles[1], original, estimate, gates, method))
    (restored, quality), (expected, expected_quality) = results
    assert restored.dtype == np.float32
    assert psnr(restored, expected) > pair[2]
    assert quality == pytest.approx(expected_quality, abs=1e-5 if pair[2] == 100 else 0.1)


def test_a_method_that_is_not_there_is_one_line(session: Session, tiles: tuple[Array, Array], gates: Array) -> None:
    encoded = session.encode(tiles[0])
    with pytest.raises(BackendError, match="no method refine_fog, which the bundle's routing names; export"):
        session.refine(tiles[0], encoded, encoded, gates, "refine_fog")


def test_what_was_encoded_stays_when_the_next_picture_is_encoded(
    session: Session, tiles: tuple[Array, Array], gates: Array
) -> None:
    original = session.encode(tiles[0])
    before, _ = session.refine(tiles[0], original, original, gates)
    session.encode(tiles[1])
    after, _ = session.refine(tiles[0], original, original, gates)
    np.testing.assert_array_equal(before, after)
    session.refine(tiles[1], original, session.encode(tiles[1]), gates)
    np.testing.assert_array_equal(before, after)  # the caller owns what it was given


def test_both_roles_of_a_feature_are_used(session: Session, tiles: tuple[Array, Array], gates: Array) -> None:
    one, two = (session.encode(tile) for tile in tiles)
    same, _ = session.refine(tiles[0], one, one, gates)
    assert psnr(same, session.refine(tiles[0], two, one, gates)[0]) < 60
    assert psnr(same, session.refine(tiles[0], one, two, gates)[0]) < 60


def test_a_tile_may_ask_the_mean_of_tokens(
    session: Session, pair: tuple[str, str, float], student: Student, tiles: tuple[Array, Array], gates: Array
) -> None:
    """Which is made on the host, in single precision, whatever the program's own is."""
    results = []
    for runner in (session, EagerSession(student)):
        one, two = (runner.encode(tile) for tile in tiles)
        assert one.tokens.dtype == np.float32
        mean = mean_tokens([(0.4, one.tokens), (0.6, two.tokens)])
        results.append(runner.refine(tiles[0], one, one._replace(tokens=mean), gates)[0])
    assert psnr(*results) > pair[2]


def test_it_answers_the_same_twice(session: Session, tiles: tuple[Array, Array], gates: Array) -> None:
    for _ in range(2):
        encoded = session.encode(tiles[0])
        restored, quality = session.refine(tiles[0], encoded, encoded, gates)
    again, again_quality = session.refine(tiles[0], encoded, encoded, gates)
    np.testing.assert_array_equal(restored, again)
    assert quality == again_quality


def test_a_file_that_is_no_program_is_one_line(pair: tuple[str, str, float], tmp_path: Path) -> None:
    for name in ("encode.onnx", "refine.onnx", "student.pte", "student.mlpackage"):
        (tmp_path / name).write_bytes(b"no program" * 50)
    with pytest.raises(BackendError, match="cannot load") as error:
        backends.load_session(pair[0], tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals on stacks of their own")
def test_a_failed_load_leaves_signals_their_stack(tmp_path: Path) -> None:
    """One that is gone ends the process at the next signal, without a word: of OpenVINO's readers one does that."""
    if not backends.available("openvino"):
        pytest.skip("openvino is not installed")
    for name in ("encode.onnx", "refine.onnx"):
        (tmp_path / name).write_bytes(b"no program" * 50)
    done = subprocess.run(
        [sys.executable, "-c", SIGNAL_STACK, "openvino", str(tmp_path)], capture_output=True, text=True
    )
    assert done.stdout.startswith("kept OpenVINO cannot load"), done.stdout + done.stderr


def test_specialists_load_when_they_are_first_asked_for() -> None:
    loaded: list[str] = []

    def load(name: str) -> str:
        loaded.append(name)
        return name.upper()

    methods = Methods.by_need(("encode", "refine", "refine_noise", "refine_blur"), load)
    assert loaded == ["encode", "refine"]
    assert [methods["refine_blur"], methods["refine_blur"], methods["refine"]] == [
        "REFINE_BLUR",
        "REFINE_BLUR",
        "REFINE",
    ]
    assert loaded == ["encode", "refine", "refine_blur"]
    with pytest.raises(BackendError, match="no method refine_rain"):
        methods["refine_rain"]
    assert set(Methods.by_need(("encode", "other"), load)) == {
        "encode"
    }  # what lacks refine is for the backend to refuse
