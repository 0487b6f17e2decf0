"""`burnish restore`: one picture from file to file, with an optional trace."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from rich.console import Console

from ..runtime import InputError, Restoration, Restorer, Step
from ..runtime.files import check_folder, replace
from ..runtime.pictures import check_suffix, read, write
from ..runtime.quality import quality_to_psnr
from .progress import counting
from .quiet import libraries_silenced

REASONS = {
    "quality": "the wanted quality was reached",
    "regression": "the next picture was predicted to be worse",
    "plateau": "another iteration would gain too little",
    "iterations": "the iteration limit was reached",
    "budget": "another iteration would not fit the budget",
    "broken": "the program gave a broken picture, which was thrown away",
    "cancelled": "it was cancelled",
}


def parse_degradations(text: str | None) -> dict[str, float] | None:
    """`rain=0.7,noise=0.3` as a mapping. Raises InputError."""
    if text is None:
        return None
    pairs = [part.partition("=") for part in text.split(",")]
    try:
        return {name.strip(): float(weight) for name, _, weight in pairs}
    except ValueError:
        raise InputError(f"--degradation {text!r} is not understood; expected rain=0.7,noise=0.3") from None


def restore_file(
    source: Path,
    out: Path,
    *,
    bundle: Path | None,
    budget_ms: float | None,
    min_quality: float | None,
    max_iterations: int,
    degradation: str | None,
    backend: str,
    program: str | None,
    experts: str | None = None,
    trace: Path | None,
) -> dict[str, Any]:
    """Restore `source` to `out`; returns the result as JSON-ready data with a `summary` line."""
    degradations = parse_degradations(degradation)
    picture = read(source)
    if not out.parent.is_dir():
        raise InputError(f"{out.parent} is not a folder; expected an existing folder to write {out.name} into")
    check_suffix(out)
    if out.exists() and out.samefile(source):
        raise InputError(f"{out} is the picture to restore, which would be lost; name another file for the result")
    if trace is not None:
        check_folder(trace)
    warm_up = budget_ms is not None
    with libraries_silenced():
        restorer = Restorer.load(bundle, backend=backend, program=program, experts=experts, warm_up=warm_up)
    with counting("restore", Console(stderr=True)) as show:
        result = restorer.restore(
            picture,
            budget_ms=budget_ms,
            min_quality=min_quality,
            max_iterations=max_iterations,
            degradations=degradations,
            keep_steps=trace is not None,
            progress=lambda update: show(
                update.done, update.tiles, f"predicted {quality_to_psnr(update.quality):.1f} dB"
            ),
        )
    write(result.picture, out)
    row = as_row(result) | {"input": str(source), "output": str(out), "chosen_because": restorer.chosen_because}
    if trace is not None:
        write_trace(result, row, trace)
    predicted = f", predicted {quality_to_psnr(result.quality):.1f} dB" if result.steps else ""
    rounds = max(0, len(result.steps) - 1)
    row["summary"] = (
        f"{source} → {out}: {rounds} iteration{'' if rounds == 1 else 's'}, kept {result.iteration}, "
        f"{result.elapsed_ms:.0f} ms{predicted}; "
        f"stopped: {result.reason.value} ({REASONS[result.reason.value]})"
        + "".join(f"\n{note}" for note in result.notes)
    )
    return row


def as_row(result: Restoration) -> dict[str, Any]:
    """A restoration as JSON-ready data."""
    return {
        "iteration": result.iteration,
        "quality": round(result.quality, 4),
        "predicted_psnr_db": round(quality_to_psnr(result.quality), 2),
        "reason": result.reason.value,
        "elapsed_ms": round(result.elapsed_ms, 2),
        "tiles": result.tiles,
        "program": result.program,
        "backend": result.backend,
        "notes": list(result.notes),
        "steps": [step_row(step) for step in result.steps],
        "trace": [
            {
                "ran": event.ran,
                "tile": event.tile,
                "iteration": event.iteration,
                "cost_ms": round(event.cost_ms, 2),
                "elapsed_ms": round(event.elapsed_ms, 2),
                "quality": None if event.quality is None or math.isnan(event.quality) else round(event.quality, 4),
            }
            for event in result.trace
        ],
    }


def step_row(step: Step) -> dict[str, Any]:
    """A step as JSON-ready data."""
    return {
        "iteration": step.iteration,
        "quality": round(step.quality, 4),
        "cost_ms": round(step.cost_ms, 2),
        "elapsed_ms": round(step.elapsed_ms, 2),
        "gates": {k: round(v, 4) for k, v in step.gates.items() if v > 0},
        "degradations": {k: round(v, 4) for k, v in step.degradations.items()},
    }


def write_trace(result: Restoration, row: dict[str, Any], folder: Path) -> None:
    """One PNG a step and trace.json with one row a step; a longer trace that was there leaves no steps behind."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"step_{index}.png" for index in range(len(result.steps_rgb))]
    for name, rgb in zip(names, result.steps_rgb, strict=True):
        write(result.picture.with_rgb(rgb), folder / name)
    for stale in folder.glob("step_[0-9]*.png"):
        if stale.name not in names:
            stale.unlink()
    text = json.dumps(row, indent=1) + "\n"
    replace(folder / "trace.json", lambda beside: beside.write_text(text))
