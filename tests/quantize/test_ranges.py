"""Ranges that ReLU allows, and zero-points at zero."""

from __future__ import annotations

import torch
from burnish.distill.methods import methods
from burnish.distill.student import Student
from burnish.quantize import core
from burnish.quantize.calibration import Samples
from burnish.quantize.config import QuantizeConfig
from burnish.quantize.ranges import DEQUANTIZE, QUANTIZE, drop_what_relu_discards
from burnish.quantize.tensorrt import TENSORRT


class Sum(torch.nn.Module):
    """Two terms, rounded to steps of 1 and 0.1, and ReLU over their sum."""

    def forward(self, x: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
        steps = []
        for term, scale, zero in ((x, 0.1, -128), (branch, 1.0, 100)):
            parameters = (scale, zero, -128, 127, torch.int8)
            steps.append(DEQUANTIZE(QUANTIZE(term, *parameters), *parameters))
        return torch.relu(steps[0] + steps[1])


def test_a_branch_is_rounded_finer_where_the_sum_can_be_positive() -> None:
    x, branch = 10 * torch.rand(1000), 40 * torch.rand(1000) - 30
    graph = torch.export.export(Sum(), (x, branch), strict=True).module()
    exact = torch.relu(x + branch)
    before = (graph(x, branch) - exact).abs().max()
    drop_what_relu_discards(graph)
    after = (graph(x, branch) - exact).abs().max()
    assert before > 0.4
    # The range was 255 wide, and is now from -25.5, the largest value of the other term, to 27.
    assert after < (25.5 + 27) / 255 / 2 + 0.1 / 2 + 1e-3


def test_tensorrt_has_only_zero_points_of_zero(
    student: Student, samples: Samples, quantize_config: QuantizeConfig
) -> None:
    graphs = core.quantize(student, 64, TENSORRT, samples, quantize_config)
    zeros = [n.args[2] for g in graphs.values() for n in g.graph.nodes if n.target in (QUANTIZE, DEQUANTIZE)]
    assert len(zeros) > 40
    assert set(zeros) == {0}
    for row in samples["refine"]:
        with torch.no_grad():
            expected, got = methods(student)["refine"](*row)[0], graphs["refine"](*row)[0]
        assert -10 * torch.log10((expected - got).square().mean()) > 28
