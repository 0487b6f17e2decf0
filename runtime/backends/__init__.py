"""Backends run programs. Each module here has `load(folder, threads)`; a name such as onnxruntime:cuda is a variant of one."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..bundle import Bundle, Program
from ..errors import BackendError, BundleError
from .base import Encoded, Session

__all__ = [
    "BACKENDS",
    "REFERENCES",
    "Encoded",
    "Session",
    "available",
    "choose",
    "load",
    "load_session",
    "needed",
    "packages",
]

_COREML = tuple(f"{kind}-{p}" for p in ("w8a8", "fp16") for kind in ("coreml", "coreml-ios17", "coreml-images"))
# Name of the backend, its module here and the package it needs → the programs it runs, best first. The order is the
# order `auto` tries: ONNX Runtime starts without torch.
BACKENDS: dict[str, tuple[str, ...]] = {
    "onnxruntime": ("onnx-fp32", "onnx-int8", "tensorrt-fp16", "tensorrt-int8"),
    "executorch": ("executorch-xnnpack-int8", "executorch-xnnpack-fp32"),
    "onnxruntime:cuda": ("onnx-fp32", "tensorrt-fp16"),
    "onnxruntime:tensorrt": ("tensorrt-int8", "tensorrt-fp16", "onnx-fp32"),
    "onnxruntime:coreml": ("onnx-fp32",),
    "onnxruntime:xnnpack": ("onnx-fp32",),
    "openvino": ("onnx-int8", "onnx-fp32", "tensorrt-int8"),
    # Last: the first load builds engines, which takes minutes on a Jetson.
    "tensorrt": ("tensorrt-int8", "tensorrt-fp16"),
    "coreml": _COREML,
    "coreml-reference": _COREML,
}
# Evaluators of programs that this machine cannot run: slow, and only for a program or a backend asked for by name.
REFERENCES = ("coreml-reference",)

# Backends that any of several packages serves, and what installs a backend that is not called like its extra.
_PACKAGES = {
    "tensorrt": ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"),
    "coreml": ("coremltools",),
    "coreml-reference": ("coremltools",),
}
_INSTALL = {
    "onnxruntime": "burnish",
    "executorch": "burnish[export]",
    "coreml": "burnish[export]",
    "coreml-reference": "burnish[export]",
}


def available(name: str) -> bool:
    """Whether the backend's package is installed, on a system it runs on."""
    if name == "coreml" and sys.platform != "darwin":
        return False
    if not any(find_spec(package) is not None for package in packages(name)):
        return False
    module, _, variant = name.partition(":")
    # Which providers there are, ONNX Runtime alone knows; it is imported in a moment.
    return not variant or import_module(f".{module}", __name__).has_provider(variant)


def packages(name: str) -> tuple[str, ...]:
    """The packages any of which serves a backend."""
    module = name.partition(":")[0]
    return _PACKAGES.get(module, (module,))


def needed(name: str) -> str:
    """What a backend that is not available takes."""
    if name == "coreml" and sys.platform != "darwin":
        return "macOS; elsewhere --backend coreml-reference evaluates its programs"
    if ":" in name:
        return "a build of ONNX Runtime with that provider"
    return f"pip install '{_INSTALL.get(name, f'burnish[{name}]')}'"


def choose(bundle: Bundle, backend: str = "auto", program: str | None = None) -> tuple[str, Program]:
    """The backend and program to use. Raises BackendError or BundleError naming what is there."""
    if backend != "auto" and backend not in BACKENDS:
        raise BackendError(f"unknown backend {backend!r}; expected auto, {', '.join(BACKENDS)}")
    there = {p.name: p for p in bundle.manifest.programs}
    if program is not None:
        bundle.program(program)
    for name in BACKENDS if backend == "auto" else (backend,):
        if name in REFERENCES and backend == "auto" and program is None:
            continue
        for candidate in BACKENDS[name]:
            if candidate in there and program in (None, candidate) and available(name):
                return name, there[candidate]
    if backend != "auto" and not available(backend):
        raise BackendError(f"backend {backend} cannot be used here: it needs {needed(backend)}")
    has = f"it has: {', '.join(there) or 'no programs'}"
    if backend == "auto":
        raise BundleError(f"{bundle.path}: no backend for {program or 'a program this machine can run'}; {has}")
    runs = f"{backend} runs {', '.join(BACKENDS[backend])}"
    raise BundleError(f"{bundle.path}: {runs}; {has if program is None else f'{program} was asked for'}")


def load(
    bundle: Bundle, backend: str, program: Program, threads: int | None = None, experts: str | None = None
) -> Session:
    """Check a program's files and load it; `experts` names a pack of the bundle to use instead of the program's own."""
    folder = bundle.program_folder(program)
    if experts is None:
        return load_session(backend, folder, threads)
    pack = bundle.expert_pack(experts)
    if program.name not in pack.programs:
        there = ", ".join(pack.programs) or "no program"
        raise BackendError(f"{program.name} cannot take the experts {experts}; they are there for {there}")
    return load_session(backend, folder, threads, bundle.file(pack.programs[program.name]))


def load_session(backend: str, folder: Path, threads: int | None = None, experts: Path | None = None) -> Session:
    """Load the program in `folder`; `experts` is a file of other experts. Raises BackendError."""
    name, _, variant = backend.partition(":")
    module: Any = import_module(f".{name.replace('-', '_')}", __name__)
    if variant:
        return module.load(folder, threads, variant)
    if experts is None:
        return module.load(folder, threads)
    if not hasattr(module, "load_with_experts"):
        raise BackendError(f"{backend} cannot exchange experts; use executorch")
    return module.load_with_experts(folder, experts, threads)
