"""The report: one self-contained page with pictures, curves and the chain of losses."""

from __future__ import annotations

import io
from importlib.resources import files
from pathlib import Path

import matplotlib
from jinja2 import Environment, select_autoescape

from ..runtime.files import replace
from .numerics import BASELINE, TEACHER, Numerics

GROUPS = ("single", "double", "triple", "pairs")


def write_report(numerics: Numerics, folder: Path) -> None:
    """Write numerics.json and report.html into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    data = numerics.model_dump_json(indent=1, exclude={"samples"}) + "\n"
    replace(folder / "numerics.json", lambda beside: beside.write_text(data))
    page = render(numerics)
    replace(folder / "report.html", lambda beside: beside.write_text(page))


def render(numerics: Numerics) -> str:
    """The page as HTML text."""
    environment = Environment(autoescape=select_autoescape(default=True))
    template = environment.from_string(files("burnish.device_tests").joinpath("report.html.jinja").read_text())
    others = [c for c in numerics.candidates if c not in (BASELINE, TEACHER)]
    return template.render(
        n=numerics,
        baseline=BASELINE,
        teacher=TEACHER if TEACHER in numerics.candidates else None,
        programs=others,
        curves=_curves(numerics),
        chain=_chain(numerics),
    )


def _chain(numerics: Numerics) -> list[tuple[str, list[tuple[str, float | None, float | None]]]]:
    """By group of conditions: each link's name, its mean PSNR at its last iteration, the difference from the link before."""
    links = ["input", *(c for c in (TEACHER, *numerics.candidates) if c in numerics.candidates)]
    links = list(dict.fromkeys(links))
    rows = []
    for group in GROUPS:
        cells: list[tuple[str, float | None, float | None]] = []
        before: float | None = None
        for link in links:
            iteration = 0 if link == "input" else numerics.iterations
            value = numerics.mean(BASELINE if link == "input" else link, iteration, group)
            cells.append((link, value, None if value is None or before is None else value - before))
            # Programs are compared with the full-precision student, not with one another.
            if link in ("input", TEACHER, BASELINE):
                before = value
        if any(value is not None for _, value, _ in cells):
            rows.append((group, cells))
    return rows


def _curves(numerics: Numerics) -> str:
    """PSNR over iterations, a line a group and candidate, as inline SVG."""
    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    shown = [g for g in GROUPS if numerics.mean(BASELINE, 0, g) is not None]
    figure, axes = plt.subplots(1, len(shown), figsize=(3.4 * len(shown), 2.9), squeeze=False)
    for axis, group in zip(axes[0], shown, strict=True):
        for candidate in numerics.candidates:
            values = [numerics.mean(candidate, i, group) for i in range(numerics.iterations + 1)]
            points = [v for v in values if v is not None]
            style = "--" if candidate not in (BASELINE, TEACHER) else "-"
            axis.plot(range(len(points)), points, style, marker="o", markersize=3, label=candidate)
        axis.set_title({"single": "single degradations"}.get(group, group), fontsize=10)
        axis.set_xlabel("iteration")
        axis.set_xticks(range(numerics.iterations + 1))
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("PSNR, dB")
    axes[0][-1].legend(fontsize=7, frameon=False)
    figure.tight_layout()
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True)
    plt.close(figure)
    return stream.getvalue().split("?>", 1)[-1].split('.dtd">', 1)[-1]
