"""The report: one self-contained page, and Markdown for a README, of everything that was measured of a bundle."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, select_autoescape

from ..runtime.bundle import Bundle
from ..runtime.files import replace
from . import parts
from .chain import chain, label, links
from .contents import NUMERICS, PICTURES, Contents, Pictures, read_contents
from .curves import anytime_curves, drift_curves, psnr_curves
from .latency import bars, emulated, notes
from .markdown import markdown
from .numerics import ALL, Numerics
from .summary import SPEED
from .verdicts import verdicts

PAGE, TEXT = "report.html", "report.md"


def write_validation(numerics: Numerics, pictures: Pictures, folder: Path, bundle: Bundle) -> None:
    """Write what a validation gave, then the report; what a killed validation would go on from is removed.

    Raises InputError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in ((NUMERICS, numerics), (PICTURES, pictures)):
        text = part.model_dump_json(indent=1) + "\n"
        replace(folder / name, lambda beside, text=text: beside.write_text(text))
    parts.clear(folder)
    write_report(read_contents(folder, bundle), folder)


def write_report(contents: Contents, folder: Path) -> None:
    """Write report.html and report.md into `folder`. Raises InputError."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in ((PAGE, render(contents)), (TEXT, markdown(contents))):
        replace(folder / name, lambda beside, text=text: beside.write_text(text))


def render(contents: Contents) -> str:
    """The page as HTML text."""
    environment = Environment(autoescape=select_autoescape(default=True), trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("burnish.device_tests").joinpath("report.html.jinja").read_text())
    numerics, perf, manifest = contents.numerics, contents.perf, contents.manifest
    known = numerics or perf
    return template.render(
        name=contents.name,
        student=manifest.student.size if manifest is not None else known.student if known is not None else "",
        manifest=manifest,
        label=label,
        whole=contents.pictures.whole,
        details=contents.pictures.details,
        anytime=anytime_curves(contents),
        perf=perf,
        measured=[] if perf is None else perf.measured,
        emulated=[] if perf is None else emulated(perf),
        notes=notes,
        bars=bars,
        n=numerics,
        **({} if numerics is None else _accuracy(numerics)),
    )


def _accuracy(numerics: Numerics) -> dict[str, Any]:
    judged = {key: verdicts(numerics, key) for key in numerics.programs}
    return {
        "links": links(numerics),
        "chain": chain(numerics),
        "verdicts": judged,
        "measures": list(zip(*judged.values(), strict=True)),
        "refused": [failure for failure in numerics.failures if failure.metric == SPEED],
        "failing": {(failure.candidate, failure.device) for failure in numerics.failures},
        "decisions": [row for row in numerics.decisions if row.condition != ALL],
        "alarms": [drift for drift in numerics.drifts if drift.alarm],
        "curves": psnr_curves(numerics),
        "drift": drift_curves(numerics),
    }
