"""The report's diagrams, as inline SVG."""

from __future__ import annotations

import io
from typing import Any

import matplotlib

from .chain import GROUPS, label, links
from .contents import Contents
from .numerics import ALL, BASELINE, INPUT, Numerics

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "burnish",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.titlesize": 10,
    "legend.frameon": False,
    "legend.fontsize": 8,
}
TITLES = {
    "single": "one degradation",
    "double": "mixtures of two",
    "triple": "mixtures of three",
    "pairs": "your pairs",
}
ALARM, QUIET = "#c0362c", "#b9c0c8"


def psnr_curves(numerics: Numerics) -> str:
    """PSNR over iterations: a panel a group of conditions, a line a candidate, from the input on."""
    groups = [group for group in GROUPS if numerics.mean((BASELINE, None), 1, group) is not None]
    if not groups:
        return ""
    figure, axes = _panels(len(groups))
    for axis, group in zip(axes, groups, strict=True):
        start = numerics.mean((INPUT, None), 0, group)
        for key in (key for key in links(numerics) if key[0] != INPUT):
            values = [start, *(numerics.mean(key, t, group) for t in range(1, numerics.iterations + 1))]
            style = "--" if key in numerics.programs else "-"
            axis.plot(range(len(values)), values, style, marker="o", markersize=3, label=label(key))
        axis.set_title(TITLES[group])
        axis.set_xticks(range(numerics.iterations + 1), ["input", *map(str, range(1, numerics.iterations + 1))])
    axes[0].set_ylabel("PSNR, dB")
    return _svg(figure, axes[0])


def anytime_curves(contents: Contents) -> str:
    """PSNR against time: a panel a device, a line a program, a mark an iteration of one tile at its measured p50.

    Each program's fastest number of threads counts. Empty where time or accuracy was not measured.
    """
    numerics, perf = contents.numerics, contents.perf
    if numerics is None or perf is None:
        return ""
    lines: dict[str, dict[str, float]] = {}
    for device, row in sorted(perf.measured, key=lambda pair: -pair[1].iteration.p50_ms):
        if (row.program, None) in numerics.programs:
            lines.setdefault(device.device, {})[row.program] = row.iteration.p50_ms
    start = numerics.mean((INPUT, None), 0)
    if not lines or start is None:
        return ""
    figure, axes = _panels(len(lines))
    for axis, (device, programs) in zip(axes, sorted(lines.items()), strict=True):
        for program, step_ms in sorted(programs.items()):
            own = (program, device) if (program, device) in numerics.programs else (program, None)
            values = [start, *(numerics.mean(own, t) for t in range(1, numerics.iterations + 1))]
            axis.plot([t * step_ms for t in range(len(values))], values, marker="o", markersize=3, label=program)
        axis.set_title(device)
        axis.legend(loc="lower right")
    axes[0].set_ylabel("PSNR, dB")
    return _svg(figure, None, "milliseconds, one tile")


def drift_curves(numerics: Numerics) -> str:
    """Loss against the student over iterations: a panel a program, a line a condition (red: alarm), the mean of all in bold."""
    figure, axes = _panels(len(numerics.programs))
    steps = range(1, numerics.iterations + 1)
    for axis, key in zip(axes, numerics.programs, strict=True):
        for drift in (d for d in numerics.drifts if (d.candidate, d.device) == key):
            if drift.condition == ALL:
                axis.plot(steps, drift.drop_db, color="black", linewidth=2, marker="o", markersize=3, zorder=3)
                continue
            axis.plot(steps, drift.drop_db, color=ALARM if drift.alarm else QUIET, linewidth=1)
        limit = numerics.gate.drop_limit(key[0])
        if limit is not None:
            axis.axhline(limit, color=ALARM, linewidth=0.8, linestyle=":")
        axis.set_title(label(key))
        axis.set_xticks(steps)
    axes[0].set_ylabel("loss, dB")
    return _svg(figure, None)


def _panels(count: int) -> tuple[Any, Any]:
    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    plt.rcdefaults()
    plt.rcParams.update(STYLE)
    columns = min(count, 3)
    rows = -(-count // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(10.4, 2.9 * rows), squeeze=False)
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    return figure, axes.flat[:count]


def _svg(figure: Any, legend_of: Any, across: str = "iteration") -> str:
    from matplotlib import pyplot as plt

    figure.supxlabel(across, fontsize=9)
    figure.tight_layout()
    if legend_of is not None:
        handles, labels = legend_of.get_legend_handles_labels()
        figure.legend(handles, labels, loc="upper center", ncols=len(labels), bbox_to_anchor=(0.5, 1.06))
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    return stream.getvalue().split('.dtd">', 1)[-1]
