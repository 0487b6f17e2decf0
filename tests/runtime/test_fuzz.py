"""A few hundred damaged pictures and manifests; `benchmarks/fuzz.py` does 20 000."""

from __future__ import annotations

from pathlib import Path

import pytest
from burnish.benchmarks.fuzz import run
from burnish.runtime import Restorer


def test_damage_ends_in_a_result_or_in_a_line(
    restorer: Restorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = run(300, 1, restorer)
    assert sum(ended.values()) == 300
    assert {"InputError", "BundleError"} <= set(ended)
    assert list(tmp_path.iterdir()) == []
