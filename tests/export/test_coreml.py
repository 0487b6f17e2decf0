"""Core ML programs: what is in the packages, graph rewrites, the checks before a bundle exists; Core ML itself on a Mac."""

from __future__ import annotations

import copy
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
from burnish.distill.methods import example_inputs
from burnish.distill.student import Student
from burnish.distill.weights import Trained
from burnish.export import coreml
from burnish.export.agreement import Agreement, restored_by
from burnish.export.context import Context
from burnish.export.targets import TARGETS
from burnish.export.writer import write_bundle
from burnish.quantize import core
from burnish.quantize.calibration import Samples
from burnish.quantize.config import QuantizeConfig
from burnish.quantize.coreml import COREML
from burnish.quantize.graphs import export_graphs
from burnish.quantize.ranges import QUANTIZE
from burnish.runtime import Bundle, backends
from burnish.runtime.backends.coreml_reference import CoreMLReferenceSession
from burnish.runtime.bundle import Program
from burnish.runtime.errors import BackendError, BundleError
from burnish.runtime.methods import contract
from burnish.runtime.mlprogram.package import Package
from torch import fx

MULTIFUNCTION = ("coreml-fp16", "coreml-w8a8", "coreml-images-fp16", "coreml-images-w8a8")
SEPARATE = ("coreml-ios17-fp16", "coreml-ios17-w8a8")
PICTURES = {"image", "current", "restored"}
METHODS = {"encode", "refine", "refine_noise"}


@pytest.fixture(scope="module")
def context(specialised: Trained, quantized: Path, samples: Samples) -> Context:
    few = {name: rows[:4] for name, rows in samples.items()}
    return Context(specialised, 64, quantized, few)


@pytest.fixture(scope="module")
def programs(bundle_path: Path, context: Context, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of all Core ML programs, also of those only written when asked for."""
    asked = [TARGETS[name] for name in (*MULTIFUNCTION, *SEPARATE) if TARGETS[name].asked]
    other = write_bundle(tmp_path_factory.mktemp("coreml") / "asked.bundle", context, asked, "a test", lambda _: None)
    there = {name: other if TARGETS[name].asked else bundle_path for name in (*MULTIFUNCTION, *SEPARATE)}
    return {name: bundle / "programs" / name for name, bundle in there.items()}


def packages(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.mlpackage"))


def verified(folder: Path) -> Program:
    """What the manifest says of a program."""
    return Bundle.open(folder.parents[1]).program(folder.name)


def descriptions(spec: Any) -> dict[str, Any]:
    """Description of every function of a specification."""
    return {f.name: f for f in spec.description.functions} or {"main": spec.description}


@pytest.mark.parametrize("program", MULTIFUNCTION)
def test_ios_18_gets_one_package_with_all_methods(programs: dict[str, Path], program: str) -> None:
    (package,) = packages(programs[program])
    opened = Package.open(package)
    assert opened.system == "iOS 18"
    assert set(opened.spec.mlProgram.functions) == set(descriptions(opened.spec)) == METHODS


@pytest.mark.parametrize("program", SEPARATE)
def test_ios_17_gets_a_package_a_method(programs: dict[str, Path], program: str) -> None:
    assert [p.stem for p in packages(programs[program])] == sorted(METHODS)
    for package in packages(programs[program]):
        opened = Package.open(package)
        assert opened.system == "iOS 17"
        assert list(opened.spec.mlProgram.functions) == ["main"]


@pytest.mark.parametrize("program", [*MULTIFUNCTION, *SEPARATE])
def test_metadata_is_filled_in(programs: dict[str, Path], program: str) -> None:
    for package in packages(programs[program]):
        spec = Package.open(package).spec
        assert spec.description.metadata.author == "burnish"
        assert spec.description.metadata.license == Bundle.open(programs[program].parents[1]).manifest.licence
        for name, function in descriptions(spec).items():
            method = package.stem if name == "main" else name
            assert tuple(f.name for f in function.input) == contract(method)[0]
            assert tuple(f.name for f in function.output) == contract(method)[1]
            for feature in (*function.input, *function.output):
                unit = "8-bit RGB" if "images" in program else "RGB in [0, 1]"
                assert unit in feature.shortDescription if feature.name in PICTURES else feature.shortDescription


@pytest.mark.parametrize("program", [*MULTIFUNCTION, *SEPARATE])
def test_pictures_are_images_only_where_asked_for(programs: dict[str, Path], program: str) -> None:
    for package in packages(programs[program]):
        for function in descriptions(Package.open(package).spec).values():
            for feature in (*function.input, *function.output):
                image = "images" in program and feature.name in PICTURES
                assert feature.type.WhichOneof("Type") == ("imageType" if image else "multiArrayType")
                if image:
                    kind = feature.type.imageType
                    assert (kind.width, kind.height, kind.ColorSpace.Name(kind.colorSpace)) == (64, 64, "RGB")


def test_nothing_of_this_machine_is_in_a_package(programs: dict[str, Path]) -> None:
    root = str(Path(coreml.__file__).resolve().parents[1]).encode()
    for program in (*MULTIFUNCTION, *SEPARATE):
        for package in packages(programs[program]):
            files = {p.relative_to(package).as_posix(): p.read_bytes() for p in package.rglob("*") if p.is_file()}
            assert sorted(p.rpartition("/")[2] for p in files) == ["Manifest.json", "model.mlmodel", "weight.bin"]
            for data in files.values():
                assert root not in data
                assert b"site-packages" not in data


def test_w8a8_has_a_byte_a_number_and_two_of_those_in_float(
    programs: dict[str, Path], context: Context, in_float: int
) -> None:
    def size(program: str) -> int:
        return sum((p / "Data/com.apple.CoreML/weights/weight.bin").stat().st_size for p in packages(programs[program]))

    numbers = sum(n.numel() for n in context.student.parameters())
    # Scales come on top.
    assert size("coreml-w8a8") < 1.05 * (numbers + in_float)
    assert size("coreml-fp16") < 1.05 * 2 * numbers


@pytest.mark.parametrize("program", ["coreml-w8a8", "coreml-ios17-w8a8"])
def test_what_convolutions_read_is_quantised(programs: dict[str, Path], program: str) -> None:
    session = CoreMLReferenceSession(programs[program])
    counts = session.operations
    assert counts["quantize"] > 20
    # Sums stay in fp16: a quantiser is followed by what multiplies it with int8 weights.
    assert counts["quantize"] <= counts["conv"] + counts["linear"]


def test_manifest_says_how_programs_were_verified(programs: dict[str, Path]) -> None:
    for folder in programs.values():
        program = verified(folder)
        assert "executed by coreml-reference" in program.verified
        assert "largest fp16 value" in program.verified
        assert program.delegates == {name: {"coreml": 1} for name in METHODS}
    assert "in float32 100.0 dB" in verified(programs["coreml-w8a8"]).verified


def test_bytes_at_the_boundary_are_those_of_the_types(programs: dict[str, Path], student: Student) -> None:
    inputs = {name: sum(t.numel() for t in tensors) for name, tensors in example_inputs(student, 64).items()}
    refine = 2 * (inputs["refine"] + 3 * 64 * 64 + 1)  # and what comes out
    assert verified(programs["coreml-fp16"]).boundary_bytes["refine"] == refine
    assert verified(programs["coreml-ios17-w8a8"]).boundary_bytes["refine"] == refine
    # Two pictures of three fp16 numbers a pixel become four bytes a pixel.
    assert verified(programs["coreml-images-fp16"]).boundary_bytes["refine"] == refine - 2 * 64 * 64 * (6 - 4)


def test_packings_compute_the_same(programs: dict[str, Path], context: Context) -> None:
    pictures = {name: restored_by(CoreMLReferenceSession(folder), context) for name, folder in programs.items()}
    for precision in ("fp16", "w8a8"):
        one = pictures[f"coreml-{precision}"]
        assert Agreement.between(one, pictures[f"coreml-ios17-{precision}"]).worst == 100
        # Images are rounded to 8 bits on their way out, and fp16 rounds where they are scaled.
        images = Agreement.between(one, pictures[f"coreml-images-{precision}"])
        assert images.median > (58 if precision == "fp16" else 45)


def test_averages_in_two_steps_are_the_average(student: Student) -> None:
    inputs = example_inputs(student, 64)
    for name, program in export_graphs(student, 64).items():
        expected = program.module()(*inputs[name])
        coreml._average_in_steps(program)
        targets = [str(node.target) for node in program.graph.nodes]
        assert not any("adaptive_avg_pool2d" in target for target in targets)
        assert sum("mean" in target for target in targets) == 2 * {"encode": 3, "refine": 5}[name]
        for got, wanted in zip(program.module()(*inputs[name]), expected, strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)


def test_a_program_that_needs_more_than_fp16_is_refused(student: Student, context: Context, tmp_path: Path) -> None:
    loud = copy.deepcopy(student)
    with torch.no_grad():  # the same function: what one layer multiplies the next divides
        block = loud.encoder.level1[0]
        block.conv1.weight.mul_(1e5)
        block.conv1.bias.mul_(1e5)
        block.conv2.weight.div_(1e5)
    loud_context = replace(context, trained=Trained(loud))
    coreml.write_fp16(loud_context, tmp_path)
    with pytest.raises(BackendError, match=r"(conv|relu) \S+ reaches (inf|\d+) in fp16, which ends at 65504"):
        coreml.check(loud_context, tmp_path)


def test_a_program_of_other_graphs_is_refused(bundle_path: Path, context: Context, tmp_path: Path) -> None:
    other = Student(context.student.config).eval()
    graphs = core.quantize(other, 64, COREML, context.samples, QuantizeConfig(pictures=2))
    (tmp_path / "coreml").mkdir()
    core.write(graphs, other, 64, tmp_path / "coreml")
    with pytest.raises(BackendError, match=r"expected 50 dB and 99.9%: conversion is wrong"):
        coreml.check(replace(context, quantized=tmp_path), bundle_path / "programs" / "coreml-w8a8")


def test_constants_of_the_graphs_are_those_of_the_package(context: Context) -> None:
    for program in coreml.graphs(context).values():
        scales = [node.args[1] for node in program.graph.nodes if node.target is QUANTIZE]
        assert scales
        assert all(scale == np.float16(scale) for scale in scales)
        for tensor in program.state_dict.values():
            if tensor.is_floating_point():
                assert torch.equal(tensor, tensor.half().to(tensor.dtype))


def test_only_inputs_and_weights_are_quantised(context: Context) -> None:
    model = export_graphs(context.student, 64)["refine"].module()
    assert isinstance(model, fx.GraphModule)
    annotated = COREML.quantizer().annotate(model)
    for node in annotated.graph.nodes:
        annotation = node.meta.get("quantization_annotation")
        weighted = str(node.target) in ("aten.conv2d.default", "aten.linear.default")
        assert (annotation is not None) == weighted
        if annotation is not None:
            assert annotation.output_qspec is None
            assert set(annotation.input_qspec_map) == set(node.args[:2])


def test_a_damaged_package_is_refused_by_bundle_and_evaluator(bundle_path: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(bundle_path, tmp_path / "a.bundle"))
    bundle = Bundle.open(copied)
    program = bundle.program("coreml-w8a8")
    weights = copied / "programs/coreml-w8a8/student.mlpackage/Data/com.apple.CoreML/weights/weight.bin"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(BundleError, match=r"weight\.bin is damaged"):
        backends.load(bundle, "coreml-reference", program)
    with pytest.raises(BackendError, match=r"weight.bin is damaged: its hash differs from the manifest's"):
        backends.load_session("coreml-reference", copied / "programs/coreml-w8a8")


def test_the_evaluator_is_chosen_only_by_name(bundle_path: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(bundle_path)
    assert backends.choose(bundle, "auto", "coreml-w8a8")[0] == (
        "coreml" if sys.platform == "darwin" else "coreml-reference"
    )
    assert backends.choose(bundle, "coreml-reference")[0] == "coreml-reference"
    copied = Path(shutil.copytree(bundle_path, tmp_path / "a.bundle"))
    manifest = json.loads((copied / "bundle.json").read_text())
    manifest["programs"] = [p for p in manifest["programs"] if p["target"] == "coreml"]
    (copied / "bundle.json").write_text(json.dumps(manifest))
    if sys.platform != "darwin":
        with pytest.raises(BundleError, match="no backend for a program this machine can run"):
            backends.choose(Bundle.open(copied))


@pytest.mark.skipif(sys.platform == "darwin", reason="Core ML is there on a Mac")
def test_without_a_mac_core_ml_says_what_to_use(bundle_path: Path) -> None:
    with pytest.raises(
        BackendError, match="coreml cannot be used here: it needs macOS; elsewhere --backend coreml-reference"
    ):
        backends.choose(Bundle.open(bundle_path), "coreml", "coreml-fp16")
    with pytest.raises(BackendError, match="Core ML cannot load"):
        backends.load_session("coreml", bundle_path / "programs" / "coreml-fp16")


@pytest.mark.skipif(sys.platform != "darwin", reason="Core ML itself runs on macOS alone")
@pytest.mark.parametrize("program", [*MULTIFUNCTION, *SEPARATE])
def test_core_ml_restores_what_the_evaluator_restores(
    programs: dict[str, Path], context: Context, program: str
) -> None:
    folder = programs[program]
    ours, theirs = (
        restored_by(backends.load_session(name, folder), context) for name in ("coreml-reference", "coreml")
    )
    apart = Agreement.between(ours, theirs)
    assert apart.median > (50 if program.endswith("fp16") else 40), f"{apart} on macOS {ct.utils._macos_version()}"
