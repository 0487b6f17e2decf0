"""The compatibility matrix is true, and nothing that is written claims more."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import onnx
import pytest
import tomllib
from burnish.export.targets import TARGETS
from burnish.quantize.graphs import IR_VERSION, OPSET
from burnish.runtime.compatibility import matrix
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from shared import BUNDLED

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "docs" / "export.md"]
# How a page may call what executes programs here.
NAMES = {
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "executorch": "ExecuTorch",
    "coreml-reference": "reference evaluator",
    "tensorrt-rtx": "TensorRT-RTX",
}


def test_ranges_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"] | {"": project["dependencies"]}
    for name, library in matrix().libraries.items():
        required = {r.name: r for r in map(Requirement, extras[library.extra])}
        assert required[name].specifier == SpecifierSet(library.range), name


def test_installed_versions_are_within_the_ranges() -> None:
    for name, library in matrix().libraries.items():
        try:
            assert version(name).partition("+")[0] in SpecifierSet(library.range, prereleases=True), name
        except PackageNotFoundError:
            continue
        assert library.tested in SpecifierSet(library.range, prereleases=True), name


def test_python_versions_are_those_of_the_package_and_of_ci() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions = matrix().python["restore"]
    assert all(v in SpecifierSet(project["requires-python"]) for v in versions)
    assert set(re.findall(r"\b3\.\d+\b", (ROOT / ".ci" / "base-package").read_text())) >= set(versions)


def test_every_program_is_in_the_matrix() -> None:
    assert set(matrix().programs) == set(TARGETS)
    for name, target in TARGETS.items():
        tried = {trial.by for trial in matrix().programs[name] if trial.how != "builder"}
        assert target.backend is None or target.backend in tried, name


def test_onnx_programs_are_what_the_oldest_readers_read(bundle_path: Path) -> None:
    limits = matrix().onnx
    assert (limits.opset, limits.ir) == (OPSET, IR_VERSION)
    for reader in limits.readers.values():
        assert limits.opset <= reader.opset
        assert limits.ir <= reader.ir
    files = sorted((bundle_path / "programs").rglob("*.onnx"))
    assert len(files) == 3 * sum(target.name.startswith(("onnx", "tensorrt")) for target in BUNDLED)
    for file in files:
        model = onnx.load(file, load_external_data=False)
        assert model.ir_version == limits.ir, file
        assert {(o.domain, o.version) for o in model.opset_import} == {("", limits.opset)}, file


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_claims_more_than_was_tried(page: Path) -> None:
    known = matrix()
    text = page.read_text()
    libraries = {"torch": "torch", "ExecuTorch": "executorch", "coremltools": "coremltools", "NNCF": "nncf"}
    for written, number in re.findall(r"\b(torch|ExecuTorch|coremltools|NNCF) (\d+\.\d+(?:\.\d+)?)", text):
        assert known.libraries[libraries[written]].tested.startswith(number), f"{written} {number}"
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert rows
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        programs = _programs(cells[0])
        if not programs:
            continue
        for program in programs:
            tried = {NAMES[trial.by] for trial in known.programs[program]}
            claimed = {name for name in NAMES.values() if re.search(rf"\b{name}\b(?!-)", cells[-1])}
            assert claimed <= tried, f"{page.name}: {program} is said to be tried by {claimed - tried}"


def _programs(cell: str) -> list[str]:
    """Names in a cell such as `executorch-xnnpack-fp32`, `-int8`."""
    names: list[str] = []
    for name in re.findall(r"`([^`]+)`", cell):
        full = name if not name.startswith("-") else names[-1].rpartition("-")[0] + name
        if full not in TARGETS:
            return []
        names.append(full)
    return names
