"""What is measured on: photographs under the protocol, or pairs of the user's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from burnish.device_tests.pairs import find_pairs
from burnish.device_tests.protocol import load_protocol
from burnish.runtime import InputError
from burnish.runtime.pictures import Picture, write

PROTOCOL = load_protocol()


def put(path: Path, value: float, side: int = 16) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write(Picture(np.full((side, side, 3), value, np.float32)), path)


def test_photographs_are_degraded_by_the_protocol(tmp_path: Path) -> None:
    put(tmp_path / "a.png", 0.4)
    put(tmp_path / "b.png", 0.6)
    source = find_pairs(tmp_path, ("noise-25", "clean"), 1, PROTOCOL)
    assert [(s.condition.name, len(s.clean)) for s in source.sets] == [("clean", 1), ("noise-25", 1)]
    clean, noisy = (pairs.read(0) for pairs in source.sets)
    np.testing.assert_array_equal(clean.degraded, clean.clean)
    assert 0.05 < noisy.degraded.std() < 0.15
    assert "user's" in source.name


def test_pairs_have_equal_names_whatever_their_suffix(tmp_path: Path) -> None:
    put(tmp_path / "degraded" / "night" / "a.jpg", 0.2)
    put(tmp_path / "clean" / "night" / "a.png", 0.8)
    put(tmp_path / "clean" / "unused.png", 0.8)
    source = find_pairs(tmp_path, (), None, PROTOCOL)
    assert [(s.condition.name, s.condition.group) for s in source.sets] == [("pairs", "pairs")]
    pair = source.sets[0].read(0)
    assert pair.degraded.mean() == pytest.approx(0.2, abs=0.01)
    assert pair.clean.mean() == pytest.approx(0.8, abs=0.01)


def test_a_folder_of_pairs_a_condition(tmp_path: Path) -> None:
    for name, value in (("rain", 0.2), ("fog", 0.3)):
        put(tmp_path / name / "degraded" / "a.png", value)
        put(tmp_path / name / "clean" / "a.png", 0.8)
    source = find_pairs(tmp_path, (), None, PROTOCOL)
    assert [s.condition.name for s in source.sets] == ["fog", "rain"]
    assert [s.condition.name for s in find_pairs(tmp_path, ("rain",), None, PROTOCOL).sets] == ["rain"]
    with pytest.raises(InputError, match=r"unknown condition .hail.; expected some of the folders of .*: fog, rain"):
        find_pairs(tmp_path, ("hail",), None, PROTOCOL)


def test_half_a_pair_is_named(tmp_path: Path) -> None:
    put(tmp_path / "degraded" / "a.png", 0.2)
    with pytest.raises(InputError, match="clean is missing"):
        find_pairs(tmp_path, (), None, PROTOCOL)
    put(tmp_path / "clean" / "b.png", 0.2)
    with pytest.raises(InputError, match=r"a\.png has no namesake"):
        find_pairs(tmp_path, (), None, PROTOCOL)
    put(tmp_path / "clean" / "a.png", 0.2, side=24)
    with pytest.raises(InputError, match="16×16 and 24×24"):
        find_pairs(tmp_path, (), None, PROTOCOL).sets[0].read(0)
    put(tmp_path / "degraded" / "a.jpg", 0.2)
    with pytest.raises(InputError, match="have one name"):
        find_pairs(tmp_path, (), None, PROTOCOL)


def test_unknown_conditions_and_folders_are_named(tmp_path: Path) -> None:
    put(tmp_path / "a.png", 0.4)
    with pytest.raises(InputError, match="hail"):
        find_pairs(tmp_path, ("hail",), None, PROTOCOL)
    with pytest.raises(InputError, match="is not a folder"):
        find_pairs(tmp_path / "none", (), None, PROTOCOL)
