"""ONNX Runtime on the CPU."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import onnxruntime as ort

from ..errors import BackendError
from .base import ENCODE_OUTPUTS, REFINE_INPUTS, Array, Encoded


class OnnxSession:
    """encode.onnx and refine.onnx of a program's folder."""

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or os.cpu_count() or 1
        options.log_severity_level = 3
        try:
            sessions: list[Any] = [
                ort.InferenceSession(str(folder / f"{name}.onnx"), options, providers=["CPUExecutionProvider"])
                for name in ("encode", "refine")
            ]
            self._encode, self._refine = sessions
        except Exception as error:  # onnxruntime raises its own unrelated types
            raise BackendError(f"ONNX Runtime cannot load {folder}: {str(error).splitlines()[0]}") from None

    def encode(self, image: Array) -> Encoded:
        outputs: list[Any] = self._encode.run(list(ENCODE_OUTPUTS), {"image": image})
        return Encoded.of(outputs[:-2], outputs[-2], outputs[-1])

    def refine(self, current: Array, original: Encoded, estimate: Encoded, gates: Array) -> tuple[Array, float]:
        values = (current, *original.features, *estimate.features[1:], estimate.tokens, gates)
        outputs: list[Any] = self._refine.run(None, dict(zip(REFINE_INPUTS, values, strict=True)))
        return outputs[0], float(outputs[1].reshape(()))


def load(folder: Path, threads: int | None = None) -> OnnxSession:
    """Load a program. Raises BackendError."""
    return OnnxSession(folder, threads)
