"""A bundle's own test: whether a program answers here as it did where it was made."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from .backends.base import Array, Session
from .bundle import Bundle, Expectation, File
from .errors import BundleError

INPUTS = "tests/inputs.safetensors"


class Inputs(NamedTuple):
    """A tile as it came, the same tile after an iteration, both float32 (1, 3, tile, tile) in [0, 1], and gates."""

    image: Array
    current: Array
    gates: Array


class Answer(NamedTuple):
    """What both methods say of the inputs; `assessment`: quality, granularity and logits of the image."""

    restored: Array
    quality: float
    assessment: Array


class Outcome(NamedTuple):
    """How far an answer is from the one expected."""

    program: str
    psnr: float
    quality_difference: float
    assessment_difference: float
    passed: bool

    def __str__(self) -> str:
        verdict = "as expected" if self.passed else "NOT as expected"
        return f"{self.program}: {verdict}, {self.psnr:.1f} dB, quality differs by {self.quality_difference:.4f}"


def answer(session: Session, inputs: Inputs) -> Answer:
    """Encode both pictures and refine once."""
    original, estimate = session.encode(inputs.image), session.encode(inputs.current)
    restored, quality = session.refine(inputs.current, original, estimate, inputs.gates)
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
    """Compare a loaded program's answer with the one the bundle brings. Raises BundleError for damaged files."""
    wanted = _read(bundle, expected.file)
    given = answer(session, read_inputs(bundle))
    error = float(np.mean((np.clip(given.restored, 0, 1) - _float(wanted["restored"])) ** 2))
    psnr = 100.0 if error < 1e-10 else -10 * float(np.log10(error))
    quality = abs(given.quality - float(wanted["quality"][0]))
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
