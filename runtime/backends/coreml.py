"""Core ML on a Mac, through coremltools. Needs `burnish[export]`.

Compiling a package takes seconds, and so does fitting it to the Neural Engine, which Core ML remembers for the compiled
model's path: so the compiled model is kept.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import BackendError, BundleError
from ..methods import ENCODE, REFINE, Methods, contract
from .base import Array, Encoded
from .coreml_reference import packages

CACHE = Path("~/Library/Caches/burnish/coreml")


class CoreMLSession:
    """student.mlpackage (iOS 18, macOS 15), or a package a method, of a program's folder."""

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        import coremltools as ct

        from ..mlprogram.package import Package

        self._models: Methods[Any] = Methods()
        self._images: dict[str, set[str]] = {}
        found = packages(folder)
        opened = {place: (Package.open(place), str(_compiled(ct, place))) for place, _ in found.values()}
        for method, (place, function) in found.items():
            package, compiled = opened[place]
            self._images[method] = package.images(function or "main")
            self._models[method] = ct.models.CompiledMLModel(compiled, function_name=function)

    def _run(self, method: str, values: tuple[Any, ...]) -> list[Array]:
        names, outputs = contract(method)
        model = self._models[method]
        given = {
            name: _image(value) if name in self._images[method] else value
            for name, value in zip(names, values, strict=True)
        }
        results: dict[str, Any] = model.predict(given)
        return [_array(results[name]) for name in outputs]

    def encode(self, image: Array) -> Encoded:
        *features, tokens, assessment = self._run(ENCODE, (image,))
        return Encoded.of(features, tokens, assessment)

    def refine(
        self, current: Array, original: Encoded, estimate: Encoded, gates: Array, method: str = REFINE
    ) -> tuple[Array, float]:
        values = (current, *original.features, *estimate.features[1:], estimate.tokens, gates)
        restored, quality = self._run(method, values)
        return restored, float(quality.reshape(()))


def _image(picture: Array) -> Image.Image:
    return Image.fromarray(np.round(picture[0].transpose(1, 2, 0).clip(0, 1) * 255).astype(np.uint8))


def _array(value: Any) -> Array:
    if not isinstance(value, Image.Image):
        return np.asarray(value, np.float32)
    pixels = np.asarray(value.convert("RGB"), np.float32).transpose(2, 0, 1)[None]
    return np.ascontiguousarray(pixels / np.float32(255))


def _compiled(ct: Any, package: Path) -> Path:
    """The package compiled, in the cache under the hash of its bytes."""
    content = hashlib.sha256()
    for file in sorted(p for p in package.rglob("*") if p.is_file()):
        content.update(f"{file.relative_to(package).as_posix()}\0{file.stat().st_size}\0".encode())
        content.update(file.read_bytes())
    place = CACHE.expanduser() / f"{content.hexdigest()[:24]}.mlmodelc"
    if not place.is_dir():
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = place.with_name(f".{os.getpid()}.{place.name}")
        shutil.move(ct.models.utils.compile_model(str(package)), beside)
        try:
            os.replace(beside, place)
        except OSError:  # another process was faster
            shutil.rmtree(beside)
            if not place.is_dir():
                raise
    return place


def load(folder: Path, threads: int | None = None) -> CoreMLSession:
    """Load a program; `threads` is Core ML's own to choose. Raises BackendError."""
    try:
        return CoreMLSession(folder, threads)
    except BundleError as error:
        raise BackendError(f"Core ML cannot load {folder}: {error}") from None
    except Exception as error:  # coremltools raises Exception itself
        raise BackendError(f"Core ML cannot load {folder}: {str(error).splitlines()[0]}") from None
