"""`burnish devices`: what is connected, what it is and how it is."""

from __future__ import annotations

from typing import Any

from ..device_tests.devices import KINDS, connected, open_device
from ..runtime.errors import DeviceError


def list_devices() -> dict[str, Any]:
    """Every connected device as JSON-ready data with a `summary`; one that does not answer says why."""
    found, problems = connected()
    rows: list[dict[str, Any]] = []
    for spec in found:
        try:
            device = open_device(spec)
            try:
                identity, state = device.identity(), device.state()
            finally:
                device.close()
            rows.append({"device": spec, **identity.model_dump(mode="json"), **state.model_dump(mode="json")})
        except DeviceError as error:
            rows.append({"device": spec, "problem": str(error)})
    lines = [_line(row) for row in rows]
    lines += [f"{kind}: not looked for: {reason}" for kind, reason in problems.items()]
    lines.append(f"by address: {KINDS['ssh']}")
    return {"devices": rows, "problems": problems, "summary": "\n".join(lines)}


def _line(row: dict[str, Any]) -> str:
    if "problem" in row:
        return f"{row['device']:<24}{row['problem']}"
    words = [
        row["model"],
        row["cpu"],
        f"{row['cores']} core{'' if row['cores'] == 1 else 's'}",
        row["os"],
        row["platform"],
    ]
    if row["temperature_c"] is not None:
        words.append(f"{row['temperature_c']:.0f} °C")
    if row["free_bytes"] is not None:
        words.append(f"{row['free_bytes'] / 2**30:.1f} GiB free")
    if row["governor"]:
        words.append(row["governor"])
    if row["emulated"]:
        words.append(f"emulated by {row['emulated']}: right about numbers, not about time")
    return f"{row['device']:<24}{', '.join(word for word in words if word)}"
