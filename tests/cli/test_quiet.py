"""Standard error while libraries load."""

from __future__ import annotations

import os

import pytest
from burnish.cli.quiet import libraries_silenced


def test_native_code_is_not_heard_and_errors_pass(capfd: pytest.CaptureFixture[str]) -> None:
    def load() -> None:
        os.write(2, b"[cpuinfo_utils.cpp:71] Reading file\n")
        raise ValueError("no such program")

    with pytest.raises(ValueError, match="no such program"), libraries_silenced():
        load()
    os.write(2, b"error: no such program\n")
    assert capfd.readouterr().err == "error: no such program\n"
