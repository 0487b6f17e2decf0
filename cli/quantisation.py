"""What `burnish quantize` needs from the floors above it: judging loaded programs, and telling what was found."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table
from torch import fx

from ..device_tests.evaluate import Evaluator, Trial
from ..device_tests.gate import Gate
from ..device_tests.numerics import Measurement
from ..device_tests.timing import interleaved
from ..distill.weights import Trained
from ..export.context import Context
from ..export.targets import TARGETS
from ..quantize import core
from ..quantize.search import Evaluate, Found
from ..quantize.sensitivity import Sensitivity
from ..runtime.backends import Session

# The program that is made from a target's quantised graphs and executed here.
PROGRAMS = {"xnnpack": "executorch-xnnpack-int8", "coreml": "coreml-w8a8", "tensorrt": "tensorrt-int8"}
# Targets that are executed here by what executes them on a device; times of the others would say nothing.
TIMED = ("xnnpack",)
ROUNDS = 15


def judges(trained: Trained, tile: int, photos: Path, max_drop_db: float) -> Mapping[str, Evaluate]:
    """For every target: lower its graphs, load the program, and hold its mean losses to `max_drop_db`."""
    gate = Gate(
        max_drop_db=max_drop_db,
        max_worst_drop_db=None,
        max_ssim_drop=None,
        max_delta_e=None,
        max_bias=None,
        min_same_stop=None,
    )
    evaluator = Evaluator(trained, tile, Trial(photos=photos, gate=gate))

    def judge(name: str) -> Evaluate:
        def evaluate(graphs: Mapping[str, fx.GraphModule]) -> Measurement:
            with _loaded(trained, tile, name, graphs) as session:
                return evaluator(session, PROGRAMS[name])

        return evaluate

    return {name: judge(name) for name in PROGRAMS}


@contextmanager
def _loaded(trained: Trained, tile: int, name: str, graphs: Mapping[str, fx.GraphModule]) -> Generator[Session]:
    """The program of quantised graphs, written and loaded."""
    with TemporaryDirectory() as place:
        source, written = Path(place) / "graphs", Path(place) / "program"
        (source / name).mkdir(parents=True)
        written.mkdir()
        core.write(graphs, trained.student, tile, source / name)
        target = TARGETS[PROGRAMS[name]]
        target.write(Context(trained, tile, source, {}), written)
        session = target.load(written)
        assert session is not None
        yield session


def show_found(console: Console, trained: Trained, tile: int, name: str, found: Found) -> None:
    """One line: what stays in float for the gate, and what that costs."""
    if not found.passed:
        console.print(f"{name}: the gate fails whatever stays in float; quantised whole. Try --train-minutes.")
    elif not found.layers:
        console.print(f"{name}: passes with nothing more in float")
    else:
        layers = ", ".join(row.layer for row in found.layers)
        work = sum(row.multiply_adds for row in found.layers) / 1e6
        costs = (
            f"{found.extra_bytes / 1024:.0f} KB more, {work:.0f} M multiply-adds, {_time(trained, tile, name, found)}"
        )
        console.print(f"{name}: passes with {layers} in float: {costs}")


def _time(trained: Trained, tile: int, name: str, found: Found) -> str:
    """What an iteration of a tile takes here, with and without the layers in float."""
    if name not in TIMED:
        return "time unmeasured"
    with _loaded(trained, tile, name, found.plain) as plain, _loaded(trained, tile, name, found.graphs) as mixed:
        rank = trained.student.config.rank
        times = interleaved({"plain": plain, "mixed": mixed}, tile, trained.routing, rank, ROUNDS)
    return (
        f"{times['mixed'].iteration_ms:.1f} ms an iteration of a tile here instead of {times['plain'].iteration_ms:.1f}"
    )


def show_sensitivities(console: Console, rows: list[Sensitivity]) -> None:
    """Layers by what their rounding costs."""
    table = Table("layer", "dB nearer in float", "parameters", "multiply-adds, M", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(row.layer, f"{row.gain_db:.3f}", str(row.parameters), f"{row.multiply_adds / 1e6:.1f}")
    console.print(table)
