"""`burnish inspect`: what is in a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..runtime.bundle import EMBEDDED, Bundle


def inspection(path: Path | None) -> dict[str, Any]:
    """The manifest as JSON-ready data, after every file's size and hash were checked."""
    bundle = Bundle.open(path or EMBEDDED)
    bundle.file(bundle.manifest.weights)
    for program in bundle.manifest.programs:
        bundle.program_folder(program)
    return bundle.manifest.model_dump(mode="json") | {"path": str(bundle.path)}


def describe(result: dict[str, Any]) -> str:
    """A few lines for people."""
    student = result["student"]
    macs = " + ".join(f"{name} {count / 1e9:.2f} G" for name, count in student["macs"].items())
    lines = [
        f"{result['path']}: student {student['size']}, {student['parameters'] / 1e6:.2f} M parameters, {macs} "
        f"multiply-adds at 256², tile {result['tile']}",
        f"weights: {result['licence']}",
    ]
    for teacher in result["provenance"]["teachers"]:
        use = "commercial use allowed" if teacher["commercial_use"] else "NO commercial use"
        lines.append(f"teacher: {teacher['name']} ({teacher['licence']}, {use})")
    for program in result["programs"]:
        size = sum(f["bytes"] for f in program["files"])
        crossing = ", ".join(f"{name} {count / 1e6:.1f} MB" for name, count in program["boundary_bytes"].items())
        made = ", ".join(f"{name} {number}" for name, number in program["made_with"].items())
        lines.append(
            f"{program['target']}-{program['precision']}: {size / 1e6:.2f} MB; crossing {crossing}; speed "
            f"{program['speed']}; {program['verified']}; made with {made}"
        )
    return "\n".join(lines)
