"""Core ML's programs evaluated on any machine with torch: the very bytes that ship, slowly. Needs `burnish[export]`.

Chosen only by name. torch does the arithmetic: whoever writes a package has it, its tensors without content check all shapes
before anything is allocated, and its convolutions take half the time of numpy's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BackendError, BundleError
from ..methods import ENCODE, REFINE, Methods, contract, methods_in
from .base import Array, Encoded

PACKAGE = "student.mlpackage"


class _Method:
    """A function of a package by its contract's names; pictures of image type are 8-bit RGB."""

    def __init__(self, package: Any, function: str, name: str, single: bool) -> None:
        from ..mlprogram.program import Function

        self.function = Function(package, function, single)
        inputs, outputs = contract(name)
        if tuple(self.function.inputs) != inputs or self.function.outputs != outputs:
            given = tuple(self.function.inputs), self.function.outputs
            raise BundleError(f"{package.path}: {name} has inputs and outputs {given}; expected {(inputs, outputs)}")
        self._images = package.images(function)

    def run(self, values: tuple[Any, ...], watch: Callable[[str, str, Any], None] | None = None) -> tuple[Any, ...]:
        inputs = dict(zip(self.function.inputs, values, strict=True))
        for name in self._images & inputs.keys():
            inputs[name] = (inputs[name] * 255).round().clamp(0, 255)
        results = self.function.run(inputs, watch)
        for name in self._images & results.keys():
            results[name] = results[name].float().round().clamp(0, 255) / 255
        return tuple(results.values())


class CoreMLReferenceSession:
    """student.mlpackage (iOS 18), or a package a method (iOS 17), of a program's folder.

    `watch` sees every computed value of all methods: its name, its operation, and the value in its declared type.
    `single`: float32 where the program says fp16. `system`: the oldest iOS that reads it. `operations`: how often which is
    computed.
    """

    def __init__(self, folder: Path, threads: int | None = None, *, single: bool = False) -> None:
        try:
            import torch

            from ..mlprogram.package import Package
        except ImportError as error:
            raise BackendError(f"torch is not installed ({error}); pip install 'burnish[export]'") from None
        if threads is not None:
            torch.set_num_threads(threads)
        self._tensor: Any = torch.from_numpy
        self.watch: Callable[[str, str, Any], None] | None = None
        found = packages(folder)
        opened = {place: Package.open(place) for place, _ in found.values()}
        self._methods = Methods(
            (name, _Method(opened[place], function or "main", name, single))
            for name, (place, function) in found.items()
        )
        self.system: str = next(iter(opened.values())).system
        self.operations = sum((method.function.operations for method in self._methods.values()), Counter[str]())

    def _own(self, array: Array) -> Any:
        return self._tensor(np.ascontiguousarray(array))

    def encode(self, image: Array) -> Encoded:
        *features, tokens, assessment = self._methods[ENCODE].run((self._own(image),), self.watch)
        return Encoded.of(features, tokens.float().numpy(), assessment.float().numpy())

    def refine(
        self, current: Array, original: Encoded, estimate: Encoded, gates: Array, method: str = REFINE
    ) -> tuple[Array, float]:
        features = (*original.features, *estimate.features[1:])
        values = (self._own(current), *features, self._own(estimate.tokens), self._own(gates))
        restored, quality = self._methods[method].run(values, self.watch)
        return restored.float().numpy(), float(quality)


def packages(folder: Path) -> dict[str, tuple[Path, str | None]]:
    """The package of every method of a program in `folder`, with its function there where the package has several.

    Raises BundleError for a damaged package.
    """
    from ..mlprogram.package import Package

    whole = folder / PACKAGE
    if whole.is_dir():
        return {name: (whole, name) for name in Package.open(whole).spec.mlProgram.functions}
    suffix = ".mlpackage"
    return {name: (folder / f"{name}{suffix}", None) for name in methods_in(folder, suffix)}


def load(folder: Path, threads: int | None = None) -> CoreMLReferenceSession:
    """Load a program. Raises BackendError where its files are damaged or torch is missing."""
    try:
        return CoreMLReferenceSession(folder, threads)
    except BundleError as error:
        raise BackendError(f"the evaluator cannot load {folder}: {error}") from None
