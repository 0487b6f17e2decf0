"""Destinations: what is there is replaced where it is of the same kind, and stays where it is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from burnish.runtime.errors import InputError
from burnish.runtime.files import check_folder, replace_folder


def fill(folder: Path) -> None:
    (folder / "marker").write_text("new")


@pytest.mark.parametrize("there", [None, (), ("marker", "other")])
def test_a_folder_of_the_same_kind_is_replaced_and_an_empty_one_taken(
    tmp_path: Path, there: tuple[str, ...] | None
) -> None:
    out = tmp_path / "out"
    if there is not None:
        out.mkdir()
        for name in there:
            (out / name).touch()
    replace_folder(out, "marker", fill)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [(path.name, path.read_text()) for path in out.iterdir()] == [("marker", "new")]


def test_another_destination_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for out, said in (
        (tmp_path, "exists and holds no marker"),
        (tmp_path / "file", "exists and holds no marker"),
        (tmp_path / "file" / "out", "file is no writable folder"),
        (Path(), "names no folder"),
    ):
        with pytest.raises(InputError, match=said):
            replace_folder(out, "marker", lambda _: pytest.fail("worked"))


def test_a_folder_that_can_be_made_may_be_written_into(tmp_path: Path) -> None:
    check_folder(tmp_path)
    check_folder(tmp_path / "a" / "b")
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "a"):
        with pytest.raises(InputError, match="file is no writable folder"):
            check_folder(path)
