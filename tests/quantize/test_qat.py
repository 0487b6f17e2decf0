"""Quantisation-aware training starts at the quantised graph, nears the student, and ends in the same kind of graph."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from burnish.distill.distillation import own_gates
from burnish.distill.methods import methods
from burnish.distill.recipe import Schedule
from burnish.distill.student import Student
from burnish.quantize import core, qat
from burnish.quantize.calibration import Samples
from burnish.quantize.config import QuantizeConfig
from burnish.quantize.xnnpack import XNNPACK
from burnish.runtime.routing import Routing
from shared import PHOTOS, TILE

Graphs = dict[str, torch.fx.GraphModule]


@pytest.fixture(scope="module")
def graphs(student: Student, samples: Samples, quantize_config: QuantizeConfig) -> Graphs:
    """Quantised with weights in steps of a sixteenth of their range: something to mend."""
    graphs = core.quantize(student, TILE, XNNPACK, samples, quantize_config)
    with torch.no_grad():
        for graph in graphs.values():
            for name, codes in graph.named_buffers():
                if name.startswith("_frozen_param"):
                    codes.copy_((codes / 16.0).round().clamp(-7, 7) * 16)
    return graphs


@torch.no_grad()
def restored(called: Mapping[str, Callable[..., Any]], image: torch.Tensor, rank: int) -> torch.Tensor:
    """A first iteration with the gates that encode's assessment opens."""
    *features, tokens, assessment = called["encode"](image)
    gates = own_gates(Routing(), assessment, rank)
    return called["refine"](image, *features, *features[1:], tokens, gates)[0]


def error(graphs: Graphs, student: Student, samples: Samples) -> float:
    rank = student.config.rank
    pairs = [(restored(graphs, x, rank), restored(methods(student), x, rank)) for (x,) in samples["encode"]]
    return sum(float((a - b).square().mean()) for a, b in pairs) / len(pairs)


def test_what_is_trained_computes_what_the_graph_does(graphs: Graphs, samples: Samples) -> None:
    trainable = {name: qat._trainable(graph) for name, graph in graphs.items()}
    for row in samples["refine"]:
        with torch.no_grad():
            got, expected = trainable["refine"](*row)[0], graphs["refine"](*row)[0]
        # One divides by a scale where the other multiplies by its inverse: here and there a value is rounded the other way.
        assert (got - expected).abs().mean() < 1e-4
        assert (got - expected).abs().max() < 5e-3


def test_training_brings_int8_nearer_to_the_student(
    graphs: Graphs, student: Student, samples: Samples, tmp_path: Path
) -> None:
    trained = {name: copy.deepcopy(graph) for name, graph in graphs.items()}
    schedule = Schedule(
        steps=60, batch=1, patch=TILE, learning_rate=3e-4, warmup=5, clip=1.0, ema=0.9, workers=0, log_seconds=0.5
    )
    rows: list[dict[str, float]] = []
    qat.fine_tune(trained, copy.deepcopy(student), Routing(), PHOTOS / "dev", schedule, tmp_path / "run", rows.append)
    assert error(trained, student, samples) < 0.7 * error(graphs, student, samples)
    assert rows
    assert {"loss", "lost_db"} <= set(rows[-1])
    for name, graph in trained.items():
        before, after = dict(graphs[name].named_buffers()), dict(graph.named_buffers())
        assert before.keys() == after.keys()
        assert all(before[key].dtype == after[key].dtype for key in before)
        nodes = [(n.op, str(n.target), str(n.args)) for n in graph.graph.nodes]
        assert nodes == [(n.op, str(n.target), str(n.args)) for n in graphs[name].graph.nodes]
