"""The protocol is fixed, and its figures can be reproduced."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from burnish.device_tests.protocol import degraded, load_protocol
from burnish.runtime.pictures import read

PHOTOS = Path(__file__).parents[2] / "recipes" / "photos"


def test_the_protocol_is_what_it_was() -> None:
    protocol = load_protocol()
    assert protocol.sha256.startswith("7dfd208ca55a778a")
    groups = [c.group for c in protocol.conditions]
    assert (groups.count("clean"), groups.count("double"), groups.count("triple")) == (1, 8, 4)


def test_input_figures_can_be_reproduced() -> None:
    """A shipped picture degrades to the same bytes twice, near the stated input PSNR of its set."""
    protocol = load_protocol()
    path = PHOTOS / "eval" / "kodim23.png"
    assert protocol.set_of([path]) == "kodak24"
    clean = read(path).rgb
    condition = next(c for c in protocol.conditions if c.name == "noise-25")
    one, two = degraded(condition, path.name, clean), degraded(condition, path.name, clean)
    np.testing.assert_array_equal(one, two)
    psnr = -10 * np.log10(np.mean((one - clean) ** 2))
    assert psnr == pytest.approx(protocol.sets["kodak24"].input_psnr["noise-25"], abs=1.0)
