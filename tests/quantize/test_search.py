"""The precision search finds the layer that was harmed, and says when nothing helps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import pytest
import torch
from burnish.distill.methods import methods
from burnish.distill.student import Student
from burnish.quantize import core
from burnish.quantize.calibration import Samples
from burnish.quantize.config import QuantizeConfig
from burnish.quantize.search import search
from burnish.quantize.sensitivity import Sensitivity, sensitivities
from burnish.quantize.xnnpack import XNNPACK

LAYER = "refiner.level2.1.conv2"
# Fewer bits than ranges need: as if everything had been seen at twenty times its size.
COARSE = 20.0


class Verdict(NamedTuple):
    passed: bool


@pytest.fixture(scope="module")
def harmed(monkeypatch_module: pytest.MonkeyPatch) -> None:
    """Every quantisation gives one layer's output a range twenty times too wide, unless the layer stays in float."""
    quantize = core.quantize

    def harm(
        student: Student, tile: int, target: core.Target, samples: Samples, config: QuantizeConfig
    ) -> dict[str, torch.fx.GraphModule]:
        graphs = quantize(student, tile, target, samples, config)
        for node in graphs["refine"].graph.nodes:
            paths = [path for path, _ in node.meta.get("nn_module_stack", {}).values()]
            if LAYER in paths and "conv2d" in str(node.target):
                for user in tuple(node.users):
                    if "quantize_per_tensor" in str(user.target):
                        _widen(user)
        graphs["refine"].recompile()
        return graphs

    monkeypatch_module.setattr(core, "quantize", harm)


def _widen(quantizer: torch.fx.Node) -> None:
    parameters = (quantizer.args[1] * COARSE, *quantizer.args[2:])  # type: ignore[operator]
    for node in (quantizer, *tuple(quantizer.users)):
        node.args = (node.args[0], *parameters)


@pytest.fixture(scope="module")
def monkeypatch_module() -> object:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def error(graphs: Mapping[str, torch.fx.GraphModule], student: Student, samples: Samples) -> float:
    with torch.no_grad():
        pairs = [(graphs["refine"](*row)[0], methods(student)["refine"](*row)[0]) for row in samples["refine"]]
    return sum(float((a - b).square().mean()) for a, b in pairs) / len(pairs)


@pytest.mark.usefixtures("harmed")
def test_the_harmed_layer_is_found_and_kept_in_float(
    student: Student, samples: Samples, quantize_config: QuantizeConfig
) -> None:
    plain = core.quantize(student, 64, XNNPACK, samples, quantize_config)
    ranking = sensitivities(plain, student, samples, pictures=4)
    assert ranking[0].layer == LAYER
    assert all(isinstance(row, Sensitivity) and row.multiply_adds >= 0 for row in ranking)
    limit = error(plain, student, samples) / 2
    steps: list[str] = []
    found = search(
        student,
        64,
        XNNPACK,
        samples,
        quantize_config,
        lambda graphs: Verdict(error(graphs, student, samples) < limit),
        steps.append,
    )
    assert found.passed
    assert [row.layer for row in found.layers] == [LAYER]
    assert error(found.graphs, student, samples) < limit
    assert found.extra_bytes == 3 * sum(p.numel() for p in student.get_submodule(LAYER).parameters())
    assert found.evaluations == len(steps) + 1 == 2


def test_a_gate_that_nothing_passes_is_said_so(
    student: Student, samples: Samples, quantize_config: QuantizeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = {"encode": torch.fx.GraphModule({}, torch.fx.Graph()), "refine": torch.fx.GraphModule({}, torch.fx.Graph())}
    ranking = [Sensitivity(f"layer{i}", 1.0 - i / 10, 10, 100) for i in range(5)]
    monkeypatch.setattr(core, "quantize", lambda *_: plain)
    monkeypatch.setattr("burnish.quantize.search.sensitivities", lambda *_: ranking)
    tried: list[str] = []
    found = search(student, 64, XNNPACK, samples, quantize_config, lambda _: Verdict(False), tried.append)
    assert not found.passed
    assert found.layers == ()
    assert tried == [f"{n} of 5 layers in float" for n in (1, 2, 4, 5)]


@pytest.mark.parametrize("needed", [1, 2, 3, 4, 5])
def test_no_more_layers_stay_in_float_than_needed(
    student: Student, samples: Samples, quantize_config: QuantizeConfig, monkeypatch: pytest.MonkeyPatch, needed: int
) -> None:
    ranking = [Sensitivity(f"layer{i}", 1.0 - i / 10, 10, 100) for i in range(5)]
    asked: list[int] = []

    def quantize(*arguments: object) -> dict[str, int]:
        config = arguments[-1]
        assert isinstance(config, QuantizeConfig)
        asked.append(sum(name.startswith("layer") for name in config.left_in_float))
        return {"refine": asked[-1]}

    monkeypatch.setattr(core, "quantize", quantize)
    monkeypatch.setattr("burnish.quantize.search.sensitivities", lambda *_: ranking)
    found = search(
        student,
        64,
        XNNPACK,
        samples,
        quantize_config,
        lambda graphs: Verdict(graphs["refine"] >= needed),  # type: ignore[operator]
        lambda _: None,
    )
    assert len(found.layers) == needed
    assert found.graphs == {"refine": needed}
    assert max(asked) <= 5
