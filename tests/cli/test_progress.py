"""How far a long count is, where nobody draws bars."""

from __future__ import annotations

import io

import pytest
from burnish.cli import progress
from rich.console import Console


def test_a_log_gets_a_line_a_minute_with_an_eta(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    stream = io.StringIO()
    with progress.counting("validate", Console(file=stream, width=200)) as show:
        show(50, 100, "loading")  # a resumed count: these 50 took no time
        for done in range(51, 76):
            now += 6.0
            show(done, 100, "rain a.png")
    assert stream.getvalue().splitlines() == [
        "validate: 60/100  eta 4.0 min  rain a.png",
        "validate: 70/100  eta 3.0 min  rain a.png",
    ]
