"""A bundle is refused, with the reason, when anything about it is wrong."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from burnish.runtime import Bundle, BundleError, BurnishError, Restorer
from burnish.runtime.bundle import EMBEDDED, is_embedded, locate
from shared import BUNDLED


@pytest.fixture
def copy(bundle_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle_path, tmp_path / "copy.bundle"))


def edit(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = bundle / "bundle.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_opens_and_lists_every_program(bundle_path: Path) -> None:
    bundle = Bundle.open(bundle_path)
    assert [p.name for p in bundle.manifest.programs] == [target.name for target in BUNDLED]
    assert all(p.verified for p in bundle.manifest.programs)


@pytest.mark.parametrize("program", [target.name for target in BUNDLED])
def test_a_changed_byte_in_any_file_of_any_program_is_noticed(copy: Path, program: str) -> None:
    bundle = Bundle.open(copy)
    entry = bundle.program(program)
    assert entry.files
    for file in (copy / f.path for f in entry.files):
        kept = file.read_bytes()
        for place in (0, len(kept) // 2, len(kept) - 1):
            file.write_bytes(kept[:place] + bytes([kept[place] ^ 1]) + kept[place + 1 :])
            with pytest.raises(BundleError, match=f"{file.name} is damaged"):
                bundle.program_folder(entry)
        file.write_bytes(kept)
    bundle.program_folder(entry)


def test_a_flipped_byte_is_noticed(copy: Path) -> None:
    file = copy / "programs" / "onnx-fp32" / "refine.onnx"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(BundleError, match="damaged"):
        Restorer.load(copy, program="onnx-fp32")


def test_a_truncated_or_missing_file_is_noticed(copy: Path) -> None:
    file = copy / "programs" / "onnx-fp32" / "encode.onnx"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(BundleError, match="damaged"):
        Restorer.load(copy, program="onnx-fp32")
    file.unlink()
    with pytest.raises(BundleError, match="missing"):
        Restorer.load(copy, program="onnx-fp32")


@pytest.mark.parametrize("path", ["../student.safetensors", "/etc/passwd", "a/../../b", "C:\\x", "a\\..\\b", ""])
def test_no_path_leaves_the_folder(copy: Path, path: str) -> None:
    edit(copy, lambda m: m["weights"].update(path=path))
    with pytest.raises(BundleError, match="leaves the bundle"):
        Bundle.open(copy)


def test_a_path_that_no_file_system_takes_is_refused(copy: Path) -> None:
    edit(copy, lambda m: m["weights"].update(path="a" * 10_000))
    with pytest.raises(BundleError, match="too long"):
        Bundle.open(copy)


@pytest.mark.parametrize("change", [{"target": "../../elsewhere"}, {"precision": ""}, {"precision": "fp32/.."}])
def test_a_programs_name_is_no_way_out(copy: Path, change: dict[str, str]) -> None:
    edit(copy, lambda m: m["programs"][0].update(change))
    with pytest.raises(BundleError, match=next(iter(change))):
        Bundle.open(copy)


def test_a_program_has_its_files_in_its_own_folder(copy: Path) -> None:
    edit(copy, lambda m: m["programs"][0]["files"][0].update(path="student.safetensors"))
    with pytest.raises(BundleError, match="is not in programs/"):
        Bundle.open(copy)


def test_a_link_out_of_the_folder_is_refused(copy: Path, tmp_path: Path) -> None:
    file = copy / "student.safetensors"
    outside = tmp_path / "outside"
    file.rename(outside)
    file.symlink_to(outside)
    bundle = Bundle.open(copy)
    with pytest.raises(BundleError, match="out of the bundle"):
        bundle.file(bundle.manifest.weights)


def test_another_format_unknown_keys_and_bad_json_are_refused(copy: Path) -> None:
    edit(copy, lambda m: m.update(surprise=1))
    with pytest.raises(BundleError, match="surprise"):
        Bundle.open(copy)
    edit(copy, lambda m: m.update(format=99))
    with pytest.raises(BundleError, match="format 99"):
        Bundle.open(copy)
    (copy / "bundle.json").write_text("[" * 100_000)
    with pytest.raises(BundleError):
        Bundle.open(copy)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["student"].update(rank=-1),
        lambda m: m["student"].update(rank=2**70),
        lambda m: m["programs"][0]["boundary_bytes"].update(encode=0),
        lambda m: m["routing"].update(tree={}),
        lambda m: m["routing"]["tree"].update(weather=[]),
        lambda m: m["routing"]["tree"].update(other=["rain"]),
        lambda m: m["routing"].update(likely={"haze": math.nan}),
        lambda m: m["programs"][0].update(calibration={"slope": math.inf, "offset": 0.0}),
        lambda m: m.update(profiles=[{"device": "x", "program": "y", "encode_ms": [math.nan, 1], "refine_ms": [1, 1]}]),
        lambda m: m.update(profiles=[{"device": "x", "program": "y", "encode_ms": [1, -1], "refine_ms": [1, 1]}]),
    ],
)
def test_numbers_and_names_that_nothing_could_restore_with_are_refused(
    copy: Path, change: Callable[[Any], None]
) -> None:
    Bundle.open(copy)
    edit(copy, change)
    with pytest.raises(BundleError, match=r"bundle.json: \w+\."):
        Bundle.open(copy)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m["student"].update(rank=8), "onnx-fp32 failed on onnxruntime"),
        (lambda m: m.update(tile=128), "onnx-fp32 failed on onnxruntime"),
        (lambda m: m["routing"].update(tree={"weather": ["rain"]}), "names 7 degradations, bundle.json 1"),
    ],
)
def test_a_manifest_of_another_program_is_told_at_loading(copy: Path, change: Callable[[Any], None], said: str) -> None:
    edit(copy, change)
    with pytest.raises(BurnishError, match=said):
        Restorer.load(copy, backend="onnxruntime", program="onnx-fp32")


def test_a_program_that_is_not_there_lists_what_is(bundle_path: Path) -> None:
    with pytest.raises(BundleError, match="onnx-fp32"):
        Bundle.open(bundle_path).program("onnx-fp16")


def test_a_size_means_the_embedded_bundle_unless_a_folder_here_is_called_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError, match=r"of an embedded one: nano, small$"):
        Bundle.open("teacher")
    assert locate(None) == EMBEDDED
    assert locate("small") == EMBEDDED
    assert Bundle.open("nano").manifest.student.size == "nano"
    assert is_embedded(locate(Path("nano")))
    (tmp_path / "nano").mkdir()
    assert locate("nano") == Path("nano")
    assert not is_embedded(Path("nano"))
    assert locate("folder/small") == Path("folder/small")
