"""ExecuTorch programs: one delegate a method, shared weights stored once, ETDump, and files that are not what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from burnish.export.executorch import _write, delegates
from burnish.runtime import Bundle
from burnish.runtime.backends.executorch import PROGRAM, ExecuTorchSession
from burnish.runtime.errors import BackendError
from executorch.exir._serialize import _deserialize_pte_binary
from torch import Tensor, nn

PROGRAMS = ["executorch-xnnpack-fp32", "executorch-xnnpack-int8"]


@pytest.fixture(params=PROGRAMS)
def folder(request: pytest.FixtureRequest, bundle_path: Path) -> Path:
    return bundle_path / "programs" / request.param


def test_each_method_is_one_delegate_with_nothing_outside(folder: Path, bundle_path: Path) -> None:
    counted = delegates(folder)
    assert counted == {name: {"XnnpackBackend": 1, "none": 0} for name in ("encode", "refine", "refine_noise")}
    assert Bundle.open(bundle_path).program(folder.name).delegates == counted


def test_weights_are_stored_once(folder: Path, bundle_path: Path, in_float: int) -> None:
    stored = _deserialize_pte_binary((folder / PROGRAM).read_bytes()).named_data
    assert stored is not None
    contents = [bytes(buffer) for buffer in stored.buffers]
    assert len(set(contents)) == len(contents)
    numbers = Bundle.open(bundle_path).manifest.student.parameters
    in_int8 = 0 if folder.name.endswith("fp32") else numbers - in_float
    # Scales and, in int8, biases in float come on top.
    assert sum(map(len, contents)) < 1.05 * (4 * numbers - 3 * in_int8)


class Both(nn.Module):
    """A method whose convolution the other method has too."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x))


def test_what_both_methods_use_is_stored_once(tmp_path: Path) -> None:
    conv = nn.Conv2d(64, 64, 3, padding=1).eval()
    size = {}
    for names in (("encode",), ("encode", "refine")):
        example = (torch.rand(1, 64, 16, 16),)
        _write({name: torch.export.export(Both(conv), example, strict=True) for name in names}, tmp_path)
        size[names] = (tmp_path / PROGRAM).stat().st_size
    one, two = size.values()
    assert two < one + conv.weight.numel() * 4 * 0.1
    assert one > conv.weight.numel() * 4


def test_a_method_that_falls_apart_is_refused(tmp_path: Path) -> None:
    class Apart(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(torch.nn.functional.layer_norm(torch.relu(x), (16,)))

    program = torch.export.export(Apart(), (torch.rand(1, 3, 16, 16),), strict=True)
    with pytest.raises(BackendError, match=r"encode is not one XNNPACK delegate: .*native_layer_norm"):
        _write({"encode": program}, tmp_path)
    assert not list(tmp_path.iterdir())


def test_etdump_on_request_names_the_kernels(folder: Path, tmp_path: Path) -> None:
    from executorch.devtools import Inspector

    session = ExecuTorchSession(folder, 1, etdump=True)
    encoded = session.encode(np.full((1, 3, 64, 64), 0.5, np.float32))
    session.refine(np.full((1, 3, 64, 64), 0.5, np.float32), encoded, encoded, np.ones((1, 40, 1, 1), np.float32))
    session.write_etdump(tmp_path / "run.etdp")
    assert [file.name for file in tmp_path.iterdir()] == ["run.etdp"]
    events = [e.name for block in Inspector(etdump_path=str(tmp_path / "run.etdp")).event_blocks for e in block.events]
    convolutions = [name for name in events if name.startswith("Convolution")]
    assert convolutions
    if folder.name.endswith("int8"):
        assert sum("QC8" in name for name in convolutions) > len(convolutions) / 2
    else:
        assert all("F32" in name for name in convolutions)


def test_without_asking_there_is_no_etdump(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="load the program with etdump=True"):
        ExecuTorchSession(folder, 1).write_etdump(tmp_path / "run.etdp")


@pytest.mark.parametrize("damage", ["truncated", "another format"])
def test_a_program_that_is_not_one_is_refused_with_the_reason(folder: Path, tmp_path: Path, damage: str) -> None:
    data = (folder / PROGRAM).read_bytes()
    changed = data[:2000] if damage == "truncated" else data[:4] + b"ET99" + data[8:]
    (tmp_path / PROGRAM).write_bytes(changed)
    with pytest.raises(BackendError, match="ExecuTorch cannot load"):
        ExecuTorchSession(tmp_path, 1)
