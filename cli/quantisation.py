"""What `burnish quantize` needs from the floors above it: judging loaded programs, and telling what was found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table
from torch import fx

from ..device_tests.evaluate import Evaluator, Trial
from ..device_tests.gate import Gate
from ..device_tests.numerics import Measurement
from ..distill.weights import Trained
from ..export.context import Context
from ..export.targets import TARGETS
from ..quantize import core
from ..quantize.search import Evaluate, Found
from ..quantize.sensitivity import Sensitivity

# The program that is made from a target's quantised graphs and executed here.
PROGRAMS = {"xnnpack": "executorch-xnnpack-int8", "tensorrt": "tensorrt-int8"}


def judges(trained: Trained, tile: int, photos: Path, max_drop_db: float) -> Mapping[str, Evaluate]:
    """For every target that runs here: lower its graphs, load the program, and hold its mean losses to `max_drop_db`."""
    gate = Gate(
        max_drop_db=max_drop_db,
        max_worst_drop_db=None,
        max_ssim_drop=None,
        max_delta_e=None,
        max_bias=None,
        min_same_stop=None,
    )
    evaluator = Evaluator(trained, tile, Trial(photos=photos, gate=gate))

    def judge(name: str, program: str) -> Evaluate:
        def evaluate(graphs: Mapping[str, fx.GraphModule]) -> Measurement:
            with TemporaryDirectory() as place:
                source, written = Path(place) / "graphs", Path(place) / "program"
                (source / name).mkdir(parents=True)
                written.mkdir()
                core.write(graphs, trained.student, tile, source / name)
                target = TARGETS[program]
                target.write(Context(trained, tile, source, {}), written)
                session = target.load(written)
                assert session is not None
                return evaluator(session, program)

        return evaluate

    return {name: judge(name, program) for name, program in PROGRAMS.items()}


def show_found(console: Console, name: str, found: Found) -> None:
    """One line: what stays in float for the gate, and what that costs."""
    if not found.passed:
        console.print(f"{name}: the gate fails whatever stays in float; quantised whole. Try --train-minutes.")
    elif not found.layers:
        console.print(f"{name}: passes with nothing more in float")
    else:
        layers = ", ".join(row.layer for row in found.layers)
        work = sum(row.multiply_adds for row in found.layers) / 1e6
        console.print(
            f"{name}: passes with {layers} in float: {found.extra_bytes / 1024:.0f} KB more, {work:.0f} M multiply-adds"
        )


def show_sensitivities(console: Console, rows: list[Sensitivity]) -> None:
    """Layers by what their rounding costs."""
    table = Table("layer", "dB nearer in float", "parameters", "multiply-adds, M", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(row.layer, f"{row.gain_db:.3f}", str(row.parameters), f"{row.multiply_adds / 1e6:.1f}")
    console.print(table)
