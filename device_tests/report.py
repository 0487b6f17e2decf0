"""The report: one self-contained page with pictures, curves, the chain of losses and what the gate says."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, select_autoescape

from ..runtime.files import replace
from . import parts
from .chain import chain, label, links
from .curves import drift_curves, psnr_curves
from .numerics import ALL
from .summary import SPEED
from .validate import Validation
from .verdicts import verdicts


def write_report(validation: Validation, folder: Path) -> None:
    """Write numerics.json and report.html into `folder`; what a killed validation would go on from is removed.

    Raises InputError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data = validation.numerics.model_dump_json(indent=1) + "\n"
    page = render(validation)
    replace(folder / "report.html", lambda beside: beside.write_text(page))
    replace(folder / "numerics.json", lambda beside: beside.write_text(data))
    parts.clear(folder)


def render(validation: Validation) -> str:
    """The page as HTML text."""
    environment = Environment(autoescape=select_autoescape(default=True), trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("burnish.device_tests").joinpath("report.html.jinja").read_text())
    numerics = validation.numerics
    judged = {key: verdicts(numerics, key) for key in numerics.programs}
    return template.render(
        n=numerics,
        whole=validation.whole,
        details=validation.details,
        label=label,
        links=links(numerics),
        chain=chain(numerics),
        verdicts=judged,
        measures=list(zip(*judged.values(), strict=True)),
        refused=[failure for failure in numerics.failures if failure.metric == SPEED],
        failing={(failure.candidate, failure.device) for failure in numerics.failures},
        decisions=[row for row in numerics.decisions if row.condition != ALL],
        alarms=[drift for drift in numerics.drifts if drift.alarm],
        curves=psnr_curves(numerics),
        drift=drift_curves(numerics),
    )
