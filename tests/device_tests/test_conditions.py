"""The protocol is fixed, and its figures can be reproduced."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from burnish.device_tests.protocol import degraded, load_protocol
from burnish.runtime.pictures import read

PHOTOS = Path(__file__).parents[2] / "recipes" / "photos"


def test_the_protocol_is_what_it_was() -> None:
    """Without the conditions that were added since, it has its first hash."""
    protocol = load_protocol()
    added = {"noise-5", "camera-noise-light", "camera-noise-heavy"}
    sets = {
        name: pictures.model_copy(
            update={"input_psnr": {c: v for c, v in pictures.input_psnr.items() if c not in added}}
        )
        for name, pictures in protocol.sets.items()
    }
    conditions = tuple(c for c in protocol.conditions if c.name not in added)
    assert protocol.version == 2
    assert protocol.conditions[: len(conditions)] == conditions
    first = protocol.model_copy(update={"version": 1, "conditions": conditions, "sets": sets})
    assert first.digest().startswith("7dfd208ca55a778a")
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
