"""A program that writes down what it was asked and what it answered, for the Swift loop to be played the same answers."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from burnish.runtime.backends.base import Array, Encoded, Session
from burnish.runtime.methods import REFINE
from safetensors.numpy import save_file


def digest(array: Array) -> str:
    return hashlib.sha256(np.ascontiguousarray(array, np.float32).tobytes()).hexdigest()


class Recorder:
    """A session around another one. Calls are kept by the bytes of what was asked."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._encode: dict[str, Any] = {}
        self._refine: dict[str, Any] = {}
        self._tokens: dict[str, Array] = {}
        self._restored: dict[str, Array] = {}

    def encode(self, image: Array) -> Encoded:
        encoded, key = self._session.encode(image), digest(image)
        said = {"quality": encoded.quality, "granularity": encoded.granularity, "logits": list(encoded.logits)}
        self._encode[key] = said
        self._tokens[key] = np.ascontiguousarray(encoded.tokens, np.float32)
        return encoded._replace(features=(key, encoded.features))

    def refine(
        self, current: Array, original: Encoded, estimate: Encoded, gates: Array, method: str = REFINE
    ) -> tuple[Array, float]:
        (evidence, features), (now, newer) = original.features, estimate.features
        restored, quality = self._session.refine(
            current, original._replace(features=features), estimate._replace(features=newer), gates, method
        )
        name = str(len(self._restored))
        self._restored[name] = np.ascontiguousarray(restored)
        key = " ".join((method, digest(current), evidence, now, digest(estimate.tokens), digest(gates)))
        self._refine[key] = {"quality": quality, "restored": name}
        return restored, quality

    def write(self, folder: Path) -> None:
        """As ios_demo/Tests/restore-check/Recording.swift reads it."""
        folder.mkdir()
        (folder / "calls.json").write_text(json.dumps({"encode": self._encode, "refine": self._refine}))
        save_file(self._tokens, folder / "tokens.safetensors")
        save_file(self._restored, folder / "restored.safetensors")
