"""Pre-flight: what falls back is counted, and the line to change and its replacement are named."""

from __future__ import annotations

import inspect
from pathlib import Path

import fragile
import pytest
import torch
from burnish.export.advice import TABLE, findings
from burnish.export.check import CHECKS, check
from burnish.runtime.errors import BackendError, InputError
from torch import Tensor, nn

FP32 = "executorch-xnnpack-fp32"


def line_of(text: str) -> int:
    lines = inspect.getsource(fragile).splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


@pytest.fixture(scope="module")
def report() -> list[str]:
    return check("fragile:make", 64, [FP32]).lines()


@pytest.mark.parametrize(
    ("name", "code", "instead"),
    [
        ("LayerNorm", "self.norm(x", "BatchNorm2d"),
        ("GELU", "F.gelu", "ReLU or Hardswish"),
        ("chunk or split", ".chunk(2", "one convolution (or linear layer) for each part"),
        ("reflect pad", 'mode="reflect"', "zero padding inside the convolution"),
        ("padding='same'", "self.same(feature)", "padding=kernel_size // 2"),
    ],
)
def test_each_operation_is_named_with_its_line_and_its_replacement(
    report: list[str], name: str, code: str, instead: str
) -> None:
    line = next(line for line in report if f": {name} " in line)
    assert f"fragile.py:{line_of(code)}:" in line
    assert f"; use {instead}" in line or instead in line.partition("; use ")[2]


def test_the_budget_is_exceeded_and_the_fallbacks_are_counted(report: list[str]) -> None:
    encode = next(line for line in report if line.startswith(FP32) and " encode " in line)
    assert encode.split()[2] == "3"
    assert encode.endswith("FAILED")
    assert any("1 × native_layer_norm, made at" in line and f":{line_of('self.norm(x')}" in line for line in report)
    assert any("split_with_sizes_copy" in line for line in report)
    assert report[-1].startswith("FAILED")
    assert check("fragile:make", 64, [FP32], budget=3).passed


def test_replacements_pass_on_every_target() -> None:
    result = check("fragile:make_sound", 64)
    assert result.passed, "\n".join(result.lines())
    assert not result.findings
    assert {v.target for v in result.verdicts} == set(CHECKS)
    for verdict in result.verdicts:
        assert verdict.skipped or (verdict.partitions == 1 and sum(verdict.delegated.values()) > 0)


def test_an_untrained_student_has_nothing_to_change() -> None:
    result = check("nano", 64, [FP32])
    assert result.passed
    assert not result.findings
    assert all(not v.fallbacks for v in result.verdicts)


class Rest(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.group_norm(x, 2)
        x = x * 0.5 + x.mean((1,), keepdim=True)
        x = nn.functional.scaled_dot_product_attention(x, x, x)
        x = torch.matmul(x, x.transpose(2, 3))
        x = nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")
        x = torch.roll(x, 1, 2)
        return nn.functional.pixel_unshuffle(x, 2)


def test_the_rest_of_the_table_is_recognised() -> None:
    program = torch.export.export(Rest(), (torch.rand(1, 4, 8, 8),))
    found = {finding.name for finding in findings(program)}
    expected = {advice.name for advice in TABLE} - {
        "LayerNorm",
        "GELU",
        "chunk or split",
        "reflect pad",
        "padding='same'",
    }
    assert found == expected


def test_averages_over_pixels_alone_are_left_in_peace() -> None:
    class Pool(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.adaptive_avg_pool2d(x, 1) + x.mean((2, 3), keepdim=True)

    assert not findings(torch.export.export(Pool(), (torch.rand(1, 4, 8, 8),)))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("large", "is no model; expected one of nano, small"),
        ("nowhere:make", "cannot be called"),
        ("fragile:missing", "cannot be called"),
        ("fragile:make_nothing", "gave no"),
        ("none.safetensors", "is not a file"),
    ],
)
def test_what_is_no_model_is_one_line(model: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        check(model, 64)


def test_unknown_targets_list_the_known() -> None:
    with pytest.raises(InputError, match=r"tpu.*executorch-xnnpack-fp32"):
        check("nano", 64, ["tpu"])


def test_a_target_whose_tool_is_missing_is_skipped_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise BackendError("TensorRT is not installed")

    monkeypatch.setattr("burnish.export.check.library", missing)
    result = check("fragile:make_sound", 64, ["tensorrt"])
    assert result.passed
    assert "not checked: TensorRT is not installed" in result.lines()[1]


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
