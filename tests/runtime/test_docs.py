"""The examples of docs/runtime.md run, in order, as one program."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from burnish.runtime import Restorer
from burnish.runtime.pictures import Picture, write
from numpy.typing import NDArray

PAGE = Path(__file__).parents[2] / "docs" / "runtime.md"


def test_the_examples_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    onnx_bundle: Path,
    photo: NDArray[np.float32],
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(Picture(photo[:100, :120]), tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    load = Restorer.load
    monkeypatch.setattr(Restorer, "load", lambda: load(onnx_bundle, backend="onnxruntime"))
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 4
    space: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), space)
    said = capsys.readouterr().out
    assert "(100, 120, 3)" in said
    assert "onnxruntime was asked for" in said
