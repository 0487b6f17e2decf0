"""`burnish inspect`: what is in a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..runtime import backends
from ..runtime.bundle import Bundle
from ..runtime.selftest import verify
from .quiet import libraries_silenced


def inspection(path: Path | None, run: bool) -> dict[str, Any]:
    """The manifest as JSON-ready data, after every file's size and hash were checked.

    With `run` every program that a backend here runs is tried on the bundle's own test; `passed` says whether all answered
    as expected.
    """
    bundle = Bundle.open(path)
    manifest = bundle.manifest
    bundle.file(manifest.weights)
    for program in manifest.programs:
        bundle.program_folder(program)
    for pack in manifest.experts:
        for file in (pack.weights, *pack.programs.values()):
            bundle.file(file)
    if manifest.self_test is not None:
        for file in (manifest.self_test.inputs, *(expected.file for expected in manifest.self_test.expected)):
            bundle.file(file)
    result = manifest.model_dump(mode="json") | {"path": str(bundle.path), "passed": True}
    if run:
        result["runs"] = _run(bundle)
        result["passed"] = all(row["passed"] for row in result["runs"])
    return result


def _run(bundle: Bundle) -> list[dict[str, Any]]:
    test = bundle.manifest.self_test
    rows: list[dict[str, Any]] = []
    for expected in test.expected if test else ():
        for backend in [name for name, programs in backends.BACKENDS.items() if expected.program in programs]:
            # TensorRT would build engines first: that is `burnish build-engine`'s to do.
            if backend == "tensorrt" or not backends.available(backend):
                continue
            with libraries_silenced():
                session = backends.load(bundle, backend, bundle.program(expected.program))
            outcome = verify(bundle, expected, session)
            rows.append(outcome._asdict() | {"backend": backend, "line": f"{outcome} ({backend})"})
    return rows


def describe(result: dict[str, Any]) -> str:
    """A few lines for people."""
    student = result["student"]
    macs = " + ".join(f"{name} {count / 1e9:.2f} G" for name, count in student["macs"].items())
    lines = [
        f"{result['path']}: format {result['format']}, student {student['size']}, "
        f"{student['parameters'] / 1e6:.2f} M parameters, {macs} multiply-adds at 256², tile {result['tile']}",
        f"weights: {result['weights']['sha256'][:12]}, {result['licence']}",
    ]
    if specialists := result["routing"]["specialists"]:
        lines.append(f"specialists: refiners of their own for {', '.join(specialists)}, when nothing else is found")
    provenance = result["provenance"]
    for teacher in provenance["teachers"]:
        use = "commercial use allowed" if teacher["commercial_use"] else "NO commercial use"
        lines.append(f"teacher: {teacher['name']} ({teacher['licence']}, {use})")
    lines += [f"data: {data}" for data in provenance["data"]]
    lines += [f"made by: {command}" for command in provenance["commands"]]
    for program in result["programs"]:
        lines += _program_lines(program)
    for pack in result["experts"]:
        there = (
            ", ".join(f"{name} {file['bytes'] / 1e3:.1f} kB" for name, file in pack["programs"].items()) or "no program"
        )
        lines.append(f"experts {pack['name']}: {pack['weights']['bytes'] / 1e3:.1f} kB {pack['verified']}; for {there}")
    for profile in result["profiles"]:
        times = ", ".join(
            f"{m} {profile[f'{m}_ms'][0]:.1f} ± {profile[f'{m}_ms'][1]:.1f} ms" for m in ("encode", "refine")
        )
        lines.append(f"profile: {profile['program']} on {profile['device']}: {times}")
    test = result["self_test"]
    lines.append(f"own test: {len(test['expected'])} programs' answers" if test else "own test: none")
    lines += [row["line"] for row in result.get("runs", ())]
    return "\n".join(lines)


def _program_lines(program: dict[str, Any]) -> list[str]:
    size = sum(f["bytes"] for f in program["files"])
    crossing = ", ".join(f"{name} {count / 1e6:.1f} MB" for name, count in program["boundary_bytes"].items())
    made = ", ".join(f"{name} {number}" for name, number in program["made_with"].items())
    lines = [
        f"{program['target']}-{program['precision']}: {size / 1e6:.2f} MB; crossing {crossing}; speed {program['speed']}",
        f"  {program['verified']}",
        f"  made with {made}",
    ]
    for method, delegates in program["delegates"].items():
        parts = ", ".join(f"{n} × {name}" for name, n in delegates.items() if name != "none")
        lines.append(f"  {method}: {parts or 'no delegate'}, {delegates.get('none', 0)} operations outside")
    lines += [f"  {f['path']}: {f['bytes']} bytes, {f['sha256'][:12]}" for f in program["files"]]
    return lines
