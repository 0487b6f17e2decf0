"""The student's contract: shapes, experts that are silent behind closed gates, and graphs that keep their inputs apart."""

from __future__ import annotations

import copy

import pytest
import torch
from burnish.distill.methods import example_inputs, methods, multiply_adds
from burnish.distill.student import SIZES, Student
from burnish.quantize.graphs import export_graphs

CEILING = {"nano": 1e9, "small": 4e9, "base": 15e9}


@pytest.mark.parametrize("size", SIZES)
def test_a_size_keeps_its_ceiling(size: str) -> None:
    assert sum(multiply_adds(Student(SIZES[size]).eval()).values()) <= CEILING[size]


@pytest.mark.parametrize("size", SIZES)
def test_shapes(size: str) -> None:
    student = Student(SIZES[size]).eval()
    config = student.config
    picture = torch.rand(2, 3, 64, 48)
    encoded = student.encode(picture)
    assert [tuple(f.shape) for f in encoded.features] == [
        (2, width, 64 // scale, 48 // scale) for width, scale in zip(config.widths, (2, 4, 8), strict=True)
    ]
    assert encoded.tokens.shape == (2, config.tokens, config.token_width)
    assert encoded.assessment.shape == (2, 2 + len(config.leaves))
    gates = torch.zeros(2, len(config.experts) * config.rank, 1, 1)
    restored, quality = student.refine(picture, encoded, encoded, gates)
    assert restored.shape == picture.shape
    assert quality.shape == (2, 1)


def test_an_expert_acts_only_through_its_gate(student: Student) -> None:
    picture = torch.rand(1, 3, 32, 32)
    encoded = student.encode(picture)
    closed = torch.zeros(1, len(student.config.experts) * student.config.rank, 1, 1)
    rain = closed.clone()
    first = student.config.experts.index("rain") * student.config.rank
    rain[:, first : first + student.config.rank] = 1.0
    without, _ = student.refine(picture, encoded, encoded, closed)
    through, _ = student.refine(picture, encoded, encoded, rain)
    assert (through - without).abs().max() > 1e-4
    with torch.no_grad():
        muted = copy.deepcopy(student)
        for block in (*muted.refiner.level3, *muted.refiner.level2):
            block.lora_b.weight[:, first : first + student.config.rank] = 0.0
        again, _ = muted.refine(picture, encoded, encoded, rain)
    torch.testing.assert_close(again, without)


def test_the_exported_graph_keeps_evidence_and_estimate_apart(student: Student) -> None:
    """torch.export merges inputs that are one tensor in the example; then the estimate would be ignored."""
    inputs = example_inputs(student, 64)["refine"]
    graph = export_graphs(student, 64)["refine"].module()
    for position in range(1, len(inputs)):
        changed = list(inputs)
        changed[position] = torch.rand_like(inputs[position])
        with torch.no_grad():
            expected, got = methods(student)["refine"](*changed), graph(*changed)
        torch.testing.assert_close(got[0], expected[0], rtol=1e-4, atol=1e-5)
