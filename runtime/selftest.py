"""A bundle's own test: whether a program answers here as it did where it was made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from .backends.base import Array, Session
from .bundle import Bundle, Expectation, File
from .errors import BundleError
from .methods import refiners

INPUTS = "tests/inputs.safetensors"
# Of an answer every seventh pixel along both axes is kept: a forty-ninth of the bytes, with pixels of every phase of what a
# program makes by strides of two.
STRIDE = 7


class Inputs(NamedTuple):
    """A tile as it came, the same tile after an iteration, both float32 (1, 3, tile, tile) in [0, 1], and gates."""

    image: Array
    current: Array
    gates: Array


class Answer(NamedTuple):
    """What the methods say of the inputs. `restored`, of `STRIDE`, and `quality`: a row for each that refines, in the order of
    `runtime.methods.refiners`; `assessment`: quality, granularity and logits of the image.
    """

    restored: Array
    quality: Array
    assessment: Array


class Outcome(NamedTuple):
    """How far an answer is from the one expected, by the worst of the methods."""

    program: str
    psnr: float
    quality_difference: float
    assessment_difference: float
    passed: bool

    def __str__(self) -> str:
        verdict = "as expected" if self.passed else "NOT as expected"
        return f"{self.program}: {verdict}, {self.psnr:.1f} dB, quality differs by {self.quality_difference:.4f}"


def answer(session: Session, inputs: Inputs, methods: Sequence[str]) -> Answer:
    """Encode both pictures and refine by each of the methods."""
    original, estimate = session.encode(inputs.image), session.encode(inputs.current)
    rows = [session.refine(inputs.current, original, estimate, inputs.gates, method) for method in methods]
    restored = np.concatenate([picture[..., ::STRIDE, ::STRIDE] for picture, _ in rows])
    quality = np.array([said for _, said in rows], np.float32)
    assessment = np.array([original.quality, original.granularity, *original.logits], np.float32)
    return Answer(restored, quality, assessment)


def read_inputs(bundle: Bundle) -> Inputs:
    """The inputs a bundle brings. Raises BundleError without or with damaged ones."""
    test = bundle.manifest.self_test
    if test is None:
        raise BundleError(f"{bundle.path} brings no inputs to test itself on; export it again")
    tensors = _read(bundle, test.inputs)
    return Inputs(*(_float(tensors[name]) for name in Inputs._fields))


def verify(bundle: Bundle, expected: Expectation, session: Session) -> Outcome:
    """Compare a loaded program's answer with the one the bundle brings.

    Raises BundleError for damaged files, BackendError for a program that lacks a method.
    """
    wanted = _read(bundle, expected.file)
    given = answer(session, read_inputs(bundle), refiners(bundle.manifest.routing.specialists))
    if {name: value.shape for name, value in wanted.items()} != {n: v.shape for n, v in given._asdict().items()}:
        raise BundleError(f"{expected.file.path} holds another kind of answer; export the bundle again")
    error = float(np.square(np.clip(given.restored, 0, 1) - _float(wanted["restored"])).mean((1, 2, 3)).max())
    psnr = 100.0 if error < 1e-10 else -10 * float(np.log10(error))
    quality = float(np.abs(given.quality - wanted["quality"]).max())
    assessment = float(np.abs(given.assessment - wanted["assessment"]).max())
    passed = bool(np.isfinite(error)) and psnr >= expected.least_psnr and quality <= expected.quality_tolerance
    return Outcome(expected.program, psnr, quality, assessment, passed)


def _read(bundle: Bundle, entry: File) -> dict[str, np.ndarray]:
    path = bundle.file(entry)
    try:
        return load_file(path)
    except (SafetensorError, ValueError, KeyError) as error:
        raise BundleError(f"{path} is not a safetensors file ({str(error)[:80]}); export the bundle again") from None


def _float(tensor: np.ndarray) -> Array:
    """Integers cover [0, 1] with their whole range."""
    if tensor.dtype.kind == "u":
        return (tensor / np.float32(np.iinfo(tensor.dtype).max)).astype(np.float32)
    return np.ascontiguousarray(tensor, np.float32)
