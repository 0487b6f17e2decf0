"""Weights are rounded so that errors cancel in what a layer computes."""

from __future__ import annotations

import pytest
import torch
from burnish.distill.methods import methods
from burnish.distill.student import Student
from burnish.quantize import core
from burnish.quantize.calibration import Samples
from burnish.quantize.config import QuantizeConfig
from burnish.quantize.layers import TRANSPOSED, layers, parameters, weights
from burnish.quantize.rounding import _compensated
from burnish.quantize.xnnpack import XNNPACK
from torch import Tensor, fx

Graphs = dict[str, fx.GraphModule]


@pytest.fixture(scope="module")
def rounded_config(quantize_config: QuantizeConfig) -> QuantizeConfig:
    """Layers of every kind are rounded: linear ones are in the tokens alone, which are left in float by default."""
    kept = [part for part in quantize_config.left_in_float if part not in ("encoder.level3", "encoder.tokens")]
    return quantize_config.model_copy(update={"left_in_float": tuple(kept)})


@pytest.fixture(scope="module")
def nearest(student: Student, samples: Samples, rounded_config: QuantizeConfig) -> Graphs:
    config = rounded_config.model_copy(update={"rounding": "nearest"})
    return core.quantize(student, 64, XNNPACK, samples, config)


@pytest.fixture(scope="module")
def compensated(student: Student, samples: Samples, rounded_config: QuantizeConfig) -> Graphs:
    assert rounded_config.rounding == "gptq"
    return core.quantize(student, 64, XNNPACK, samples, rounded_config)


def test_codes_are_whole_in_range_and_change_the_output_less() -> None:
    chance = torch.Generator().manual_seed(3)
    inputs = torch.rand(4000, 24, generator=chance, dtype=torch.float64) + torch.rand(4000, 1, generator=chance)
    weight = torch.randn(8, 24, generator=chance, dtype=torch.float64) * 20
    weight[0, 0] = 130
    codes = _compensated(weight, torch.full_like(weight, -100), torch.full_like(weight, 100), inputs.T @ inputs)
    assert torch.equal(codes, codes.round())
    assert codes.abs().max() == 100

    def error(codes: Tensor) -> Tensor:
        return ((codes - weight) @ inputs.T).square().mean(1)

    assert error(codes)[1:].mean() < 0.2 * error(weight.round())[1:].mean()
    # What a code cannot reach the others of its row make up for.
    assert error(codes)[0] < 0.1 * error(weight.round().clamp(-100, 100))[0]


class Outputs(fx.Interpreter):
    """How far each layer is from the student's on what it reads: `errors`, sums of mean squares by node."""

    def __init__(self, graph: fx.GraphModule, student: Student) -> None:
        super().__init__(graph)
        self._layers = {node: path for path, nodes in layers(graph).items() for node in nodes}
        self._student = student
        self.errors: dict[str, float] = {}

    def run_node(self, n: fx.Node) -> object:
        result = super().run_node(n)
        if n in self._layers:
            module = self._student.get_submodule(self._layers[n])
            difference = result - module(self.env[n.args[0]])  # type: ignore[index]
            self.errors[n.name] = self.errors.get(n.name, 0.0) + float(difference.square().mean())
        return result


@torch.no_grad()
def errors(graph: fx.GraphModule, student: Student, rows: list[tuple[Tensor, ...]]) -> dict[str, float]:
    """`Outputs.errors` over samples."""
    outputs = Outputs(graph, student)
    for row in rows:
        outputs.run(*row)
    return outputs.errors


@pytest.mark.parametrize("method", ["encode", "refine"])
def test_every_kind_of_layer_computes_nearer_to_the_student(
    nearest: Graphs, compensated: Graphs, student: Student, samples: Samples, method: str
) -> None:
    kinds = {node.target for nodes in layers(nearest[method]).values() for node in nodes}
    assert method == "encode" or TRANSPOSED in kinds
    before, after = (errors(graphs[method], student, samples[method]) for graphs in (nearest, compensated))
    assert before.keys() == after.keys()
    ratios = {name: after[name] / before[name] for name in before if before[name] > 0}
    assert len(ratios) > 5
    assert max(ratios.values()) < 1.05, ratios
    assert sum(ratios.values()) / len(ratios) < 0.75, ratios


def test_scales_stay_and_codes_are_in_range(nearest: Graphs, compensated: Graphs) -> None:
    changed = 0
    for method, graph in compensated.items():
        for (one, name), (other, same) in zip(weights(graph), weights(nearest[method]), strict=True):
            assert name == same
            torch.testing.assert_close(parameters(graph, one), parameters(nearest[method], other), rtol=0, atol=0)
            codes, nearest_codes = graph.get_buffer(name), nearest[method].get_buffer(name)
            assert codes.dtype == nearest_codes.dtype
            assert codes.min() >= one.args[-3]
            assert codes.max() <= one.args[-2]
            changed += int((codes != nearest_codes).sum())
    assert changed > 1000


def test_the_restored_picture_is_nearer_to_the_student(
    nearest: Graphs, compensated: Graphs, student: Student, samples: Samples
) -> None:
    def error(graphs: Graphs) -> float:
        with torch.no_grad():
            pairs = [(graphs["refine"](*row)[0], methods(student)["refine"](*row)[0]) for row in samples["refine"]]
        return sum(float((a - b).square().mean()) for a, b in pairs)

    assert error(compensated) < error(nearest)
