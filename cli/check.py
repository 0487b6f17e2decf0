"""`burnish export --check`: what each target would make of a model."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Console

from .stages import check_tile


def check_model(
    model: str, tile: int, targets: list[str] | None, budget: int, console: Console
) -> tuple[dict[str, Any], bool]:
    """The report, and whether every method is within the budget of partitions. Raises InputError."""
    check_tile(tile)
    from ..export.check import check

    with console.status("check") as status:
        result = check(model, tile, targets, budget, lambda step: status.update(f"check: {step}"))
    return asdict(result) | {"passed": result.passed, "summary": "\n".join(result.lines())}, result.passed
