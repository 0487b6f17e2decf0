"""`burnish doctor`: what is installed against what burnish was tried with, and what each target still needs."""

from __future__ import annotations

import ctypes
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from packaging.specifiers import SpecifierSet

from ..runtime import backends
from ..runtime.compatibility import Matrix, matrix

# Importable name of what is installed under another one.
_MODULES = {
    "cuda-bindings": "cuda.bindings.runtime",
    "tensorrt-rtx-cu13-bindings": "tensorrt_rtx_bindings",
    "tensorrt-rtx-cu13-libs": "tensorrt_rtx_libs",
    "executorch": "executorch.runtime",
}
_MARK = "burnish-doctor:"
_TRY = f"""
import importlib, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
        print("{_MARK}", flush=True)
    except Exception as error:
        print("{_MARK}", (str(error).strip() or type(error).__name__).splitlines()[-1][:160], flush=True)
"""
_PAIRS = (("onnxruntime", "onnxruntime-gpu"),)


def diagnose() -> dict[str, Any]:
    """Installed libraries, what runs each target here and what that would take, what each extra lacks, and problems: those
    that break something installed, one line each."""
    known = matrix()
    found = {name: _installed(name) for name in known.libraries}
    problems = [*_python_problems(known), *_version_problems(known, found), *_import_problems(found)]
    problems += [
        f"{a} {_installed(a)} and {b} {_installed(b)} overwrite each other; pip uninstall one of them"
        for a, b in _PAIRS
        if _installed(a) and _installed(b)
    ]
    libraries = {
        name: {"installed": found[name], "tested": library.tested, "range": library.range, "extra": library.extra}
        for name, library in known.libraries.items()
    }
    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "libraries": libraries,
        "targets": _targets(known),
        "missing": _missing(known, found),
        "problems": problems,
    }


def describe(result: dict[str, Any]) -> str:
    """A line a library, a line a target, a line for what is missing, a line a problem."""
    lines = [f"Python {result['python']}, {result['machine']}"]
    for name, row in result["libraries"].items():
        if row["installed"]:
            same = (
                "as tested" if row["installed"].partition("+")[0] == row["tested"] else f"tested with {row['tested']}"
            )
            lines.append(f"  {name} {row['installed']} ({same})")
    alike: dict[str, list[str]] = {}
    for target, what in result["targets"].items():
        alike.setdefault(what, []).append(target)
    lines += [f"{', '.join(targets)}: {what}" for what, targets in alike.items()]
    lines += [f"not here: {what}" for what in result["missing"]]
    lines += [f"PROBLEM: {what}" for what in result["problems"]]
    if not result["problems"]:
        lines.append("no problems")
    return "\n".join(lines)


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _python_problems(known: Matrix) -> list[str]:
    here = ".".join(platform.python_version_tuple()[:2])
    tried = known.python["restore"]
    return [] if here in tried else [f"Python {here} was never tried; use one of {', '.join(tried)}"]


def _version_problems(known: Matrix, found: dict[str, str | None]) -> list[str]:
    problems: list[str] = []
    for name, library in known.libraries.items():
        installed = found[name]
        if installed is not None and installed.partition("+")[0] not in SpecifierSet(library.range, prereleases=True):
            extra = f"burnish[{library.extra}]" if library.extra else "burnish"
            problems.append(f"{name} {installed} is outside {library.range}; pip install '{extra}'")
    return problems


def _import_problems(found: dict[str, str | None]) -> list[str]:
    """What is installed but does not load, tried in a process of its own, since some crash instead of failing."""
    waiting = [name for name, installed in found.items() if installed]
    problems: list[str] = []
    while waiting:
        modules = [_MODULES.get(name, name) for name in waiting]
        done = subprocess.run([sys.executable, "-c", _TRY, *modules], capture_output=True, text=True, timeout=600)
        said = [line.partition(" ")[2] for line in done.stdout.splitlines() if line.startswith(_MARK)]
        # A process that crashed said nothing of the module it was at; the others follow in the next one.
        crashed = len(said) < len(waiting)
        if crashed:
            said.append(f"the process ended with status {done.returncode}")
        problems += [
            f"{name} is installed but does not load: {what}" for name, what in zip(waiting, said, strict=False) if what
        ]
        waiting = waiting[len(said) :]
    return problems


def _targets(known: Matrix) -> dict[str, str]:
    """By target: which backends run its programs here, and what the others need."""
    lines: dict[str, str] = {}
    for target in dict.fromkeys(program.rpartition("-")[0] for program in known.programs):
        serving = {
            name for name, programs in backends.BACKENDS.items() if any(p.startswith(f"{target}-") for p in programs)
        }
        # Providers of ONNX Runtime are a matter of its build: said where they are there.
        lacking = {name: backends.needed(name) for name in serving if not backends.available(name) and ":" not in name}
        if "tensorrt" in serving - lacking.keys() and not _has_cuda():
            lacking["tensorrt"] = "an NVIDIA GPU with its driver"
        here = [name for name in backends.BACKENDS if name in serving - lacking.keys() and backends.available(name)]
        needs = [f"{name} needs {what}" for name, what in sorted(lacking.items())]
        lines[target] = "; ".join([f"runs here with {', '.join(here)}" if here else "nothing here runs it", *needs])
    return lines


def _has_cuda() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def _missing(known: Matrix, found: dict[str, str | None]) -> list[str]:
    """One line an extra that is not complete, and one a tool that is not on the path."""
    lacking: dict[str, list[str]] = {}
    for name, library in known.libraries.items():
        if library.extra and found[name] is None:
            lacking.setdefault(library.extra, []).append(name)
    lines = [f"{', '.join(names)}: pip install 'burnish[{extra}]'" for extra, names in lacking.items()]
    lines += [f"{tool}: {what}" for tool, what in known.tools.items() if shutil.which(tool) is None]
    return lines
