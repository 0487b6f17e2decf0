"""Packs of experts: exchanged at run time, in fp32 and int8, as if the program had been made with them."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from burnish.cli.inspect import describe, inspection
from burnish.device_tests.eager import EagerSession
from burnish.device_tests.evaluate import Evaluator, Trial
from burnish.distill.student import SIZES, Student
from burnish.distill.weights import Trained, load_student, read_student, read_tensors, save_student
from burnish.export.context import Context
from burnish.export.executorch import _lower, _outside, _quantized
from burnish.export.expert_pack import expert_tensors, write_pack
from burnish.export.experts import in_scale, read_pack, read_packs
from burnish.export.targets import select
from burnish.export.writer import write_bundle
from burnish.quantize.calibration import Samples
from burnish.quantize.stage import EQUALISED
from burnish.runtime import Bundle, BundleError, InputError, Restorer, backends
from burnish.runtime.backends.base import Array, Session
from burnish.runtime.backends.executorch import PROGRAM, ExecuTorchSession
from burnish.runtime.bundle import EMBEDDED
from burnish.runtime.errors import BackendError
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from shared import PHOTOS

INT8, FP32 = "executorch-xnnpack-int8", "executorch-xnnpack-fp32"


@pytest.fixture(scope="module")
def other(student: Student) -> Student:
    """The student with other experts."""
    torch.manual_seed(5)
    changed = copy.deepcopy(student)
    with torch.no_grad():
        for value in expert_tensors(changed).values():
            value.copy_(torch.randn_like(value) * 0.05)
    return changed


@pytest.fixture(scope="module")
def context(student: Student, other: Student, quantized: Path, samples: Samples) -> Context:
    return Context(Trained(student), 64, quantized, samples, packs={"night": other})


@pytest.fixture(scope="module")
def path(context: Context, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a pack of experts beside the program's own."""
    out = tmp_path_factory.mktemp("packs") / "packs.bundle"
    return write_bundle(out, context, select(["onnx-fp32", FP32, INT8]), "a test", lambda _: None)


@pytest.fixture
def tile(photo: NDArray[np.float32]) -> Array:
    return np.ascontiguousarray(photo[100:164, 90:154].transpose(2, 0, 1)[None])


def restored(session: Session, tile: Array) -> Array:
    encoded = session.encode(tile)
    return session.refine(tile, encoded, encoded, np.ones((1, 40, 1, 1), np.float32))[0]


def load(path: Path, program: str, experts: str | None = None) -> Session:
    bundle = Bundle.open(path)
    return backends.load(bundle, "executorch", bundle.program(program), 1, experts)


def test_fp32_packs_are_their_students(path: Path, student: Student, other: Student, tile: Array) -> None:
    own, exchanged = restored(load(path, FP32), tile), restored(load(path, FP32, "night"), tile)
    np.testing.assert_allclose(own, restored(EagerSession(student), tile), atol=1e-5)
    np.testing.assert_allclose(exchanged, restored(EagerSession(other), tile), atol=1e-5)
    assert np.abs(own - exchanged).max() > 0.01


def test_int8_packs_are_bit_identical_to_a_program_made_with_them(
    path: Path, context: Context, student: Student, other: Student, tile: Array, tmp_path: Path
) -> None:
    scaled = in_scale(other, student, load_student(path_of(context) / EQUALISED))
    programs = _quantized(context)
    refine = _outside(programs["refine"], expert_tensors(scaled))
    for node in refine.graph.nodes:
        node.meta.pop("custom", None)
    (tmp_path / PROGRAM).write_bytes(_lower({**programs, "refine": refine}).buffer)
    whole = restored(ExecuTorchSession(tmp_path, 1), tile)
    np.testing.assert_array_equal(restored(load(path, INT8, "night"), tile), whole)
    assert np.abs(whole - restored(load(path, INT8), tile)).max() > 0.01


def path_of(context: Context) -> Path:
    assert context.quantized is not None
    return context.quantized


def test_int8_packs_restore_what_their_students_restore(path: Path, other: Student, tile: Array) -> None:
    error = np.mean((restored(load(path, INT8, "night"), tile) - restored(EagerSession(other), tile)) ** 2)
    assert -10 * np.log10(error) > 20


def test_the_restorer_takes_a_pack_by_name(path: Path, photo: NDArray[np.float32]) -> None:
    picture = np.round(photo[100:164, 90:154] * 255).astype(np.uint8)
    results = [
        Restorer.load(path, program=FP32, experts=experts, threads=1, warm_up=False).restore(
            picture, max_iterations=1, rollback=False, degradations={"rain": 1.0}, keep_steps=True
        )
        for experts in (None, "night")
    ]
    own, exchanged = (result.steps_rgb[1] for result in results)
    assert np.abs(own - exchanged).max() > 0.01
    assert Restorer.load(path, experts="night", threads=1, warm_up=False).program.name in (FP32, INT8)


def test_unknown_packs_and_programs_without_packs_are_named(path: Path) -> None:
    with pytest.raises(BundleError, match="no pack of experts 'day'; it has: night"):
        load(path, FP32, "day")
    with pytest.raises(BackendError, match=r"onnx-fp32 cannot take the experts night; they are there for .*fp32"):
        Restorer.load(path, program="onnx-fp32", experts="night")


def test_a_damaged_pack_is_refused(path: Path) -> None:
    file = path / "experts" / f"night.{FP32}.ptd"
    kept = file.read_bytes()
    try:
        file.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
        with pytest.raises(BundleError, match="damaged"):
            load(path, FP32, "night")
        with pytest.raises(BundleError, match=rf"night\.{FP32}\.ptd is damaged"):
            inspection(path, run=False)
    finally:
        file.write_bytes(kept)


def test_inspection_lists_packs(path: Path) -> None:
    shown = describe(inspection(path, run=False))
    assert re.search(
        rf"experts night: [\d.]+ kB int8, [\d.]+ dB .* from its student; for {FP32} [\d.]+ kB, {INT8}", shown
    )


def test_a_self_contained_program_takes_no_pack(path: Path, bundle_path: Path) -> None:
    whole = bundle_path / "programs" / FP32
    with pytest.raises(BackendError, match="holds its experts itself; export the bundle with --experts"):
        ExecuTorchSession(whole, 1, experts=path / "experts" / f"night.{FP32}.ptd")


def test_experts_that_are_equal_cannot_be_told_apart(
    student: Student, other: Student, samples: Samples, tmp_path: Path
) -> None:
    silent = copy.deepcopy(student)
    with torch.no_grad():
        for name, value in expert_tensors(silent).items():
            if "lora_b" in name:
                value.zero_()
    context = Context(Trained(silent), 64, None, samples, packs={"night": other})
    with pytest.raises(BackendError, match="constants of its experts are equal"):
        write_bundle(tmp_path / "a.bundle", context, select([FP32]), "a test", lambda _: None)
    with pytest.raises(InputError, match="has zeros, which hide the scale"):
        in_scale(other, silent, silent)


def test_a_pack_differs_in_its_experts_alone(student: Student, other: Student, tmp_path: Path) -> None:
    file = tmp_path / "other.safetensors"
    save_student(Trained(other), file)
    assert set(read_packs(student, [f"night={file}"])) == {"night"}
    for entry in ("night", f"={file}", f"no name={file}"):
        with pytest.raises(InputError, match="is no pack of experts"):
            read_packs(student, [entry])
    with pytest.raises(InputError, match="every name once"):
        read_packs(student, [f"night={file}", f"night={file}"])
    changed = copy.deepcopy(other)
    with torch.no_grad():
        changed.encoder.stem.weight.add_(1)
    save_student(Trained(changed), file)
    with pytest.raises(InputError, match=r"differs from the student in encoder\.stem\.weight"):
        read_packs(student, [f"night={file}"])
    save_student(Trained(Student(SIZES["small"])), file)
    with pytest.raises(InputError, match="other sizes or experts"):
        read_packs(student, [f"night={file}"])


def scaled_experts(student: Student, a: float, b: float) -> Student:
    """The student with the experts' A and B times a factor."""
    changed = copy.deepcopy(student)
    with torch.no_grad():
        for name, value in expert_tensors(changed).items():
            value.mul_(a if "lora_a" in name else b)
    return changed


def test_a_pack_that_leaves_the_programs_ranges_is_refused_with_the_figures(
    student: Student, quantized: Path, samples: Samples, tmp_path: Path
) -> None:
    loud = scaled_experts(student, 1.0, 8.0)
    context = Context(Trained(student), 64, quantized, samples, packs={"loud": loud})
    with pytest.raises(
        InputError, match=r"experts loud for .*int8: .* reaches -?[\d.]+ to [\d.]+, [\d.]+% of it outside"
    ):
        write_bundle(tmp_path / "a.bundle", context, select([INT8]), "a test", lambda _: None)
    assert not list(tmp_path.iterdir())


def test_ranks_that_leave_a_range_are_fitted(
    path: Path, student: Student, quantized: Path, samples: Samples, tmp_path: Path, tile: Array
) -> None:
    """Experts eight times as loud between A and B, which compute what the student's own compute."""
    same = scaled_experts(student, 8.0, 1 / 8)
    context = Context(Trained(student), 64, quantized, samples, packs={"same": same})
    out = write_bundle(tmp_path / "a.bundle", context, select([INT8]), "a test", lambda _: None)
    error = np.mean((restored(load(out, INT8, "same"), tile) - restored(load(path, INT8), tile)) ** 2)
    assert -10 * np.log10(error) > 35


def test_a_pack_is_a_quarter_of_its_bytes_and_costs_nothing(tmp_path: Path) -> None:
    """Trained experts, over every condition of the protocol: nothing on the mean, little on any."""
    trained = read_student(EMBEDDED / "student.safetensors")
    whole, packed = tmp_path / "whole.safetensors", tmp_path / "packed.safetensors"
    save_file({name: value.contiguous() for name, value in expert_tensors(trained.student).items()}, whole)
    write_pack(trained.student, packed)
    assert packed.stat().st_size <= 0.27 * whole.stat().st_size
    trial = Trial(photos=PHOTOS / "dev", pictures=4, iterations=1)
    measured = Evaluator(trained, 128, trial)(EagerSession(read_pack(trained.student, packed)), INT8)
    drops = measured.drops(INT8)
    assert len(drops) > 20
    assert np.mean(list(drops.values())) <= 0.01
    assert max(drops.values()) <= 0.05


def test_a_pack_is_exported_again_for_its_student_alone(
    path: Path, student: Student, other: Student, tile: Array, tmp_path: Path
) -> None:
    file = path / "experts" / "night.safetensors"
    again = read_packs(student, [f"night={file}"])["night"]
    for name, value in expert_tensors(again).items():
        wanted = expert_tensors(other)[name]
        assert (value - wanted).abs().max() <= wanted.abs().max() / 250, name
    write_pack(again, tmp_path / "again.safetensors")
    first, second = (read_tensors(pack) for pack in (file, tmp_path / "again.safetensors"))
    assert first[0] == second[0]
    assert all(torch.equal(value, second[1][name]) for name, value in first[1].items())
    stranger = copy.deepcopy(student)
    with torch.no_grad():
        stranger.encoder.stem.weight.add_(1)
    with pytest.raises(InputError, match="is a pack for another student"):
        read_packs(stranger, [f"night={file}"])
    with safe_open(file, "pt") as opened:
        metadata, tensors = opened.metadata(), {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    tensors["refiner.level2.0"] = tensors["refiner.level2.0"][:, :-1].clone()
    save_file(tensors, tmp_path / "cut.safetensors", metadata)
    with pytest.raises(InputError, match=r"refiner\.level2\.0 is missing or of another size"):
        read_packs(student, [f"night={tmp_path / 'cut.safetensors'}"])
    (tmp_path / "half.safetensors").write_bytes(file.read_bytes()[:-10])
    with pytest.raises(InputError, match="is not a safetensors file"):
        read_packs(student, [f"night={tmp_path / 'half.safetensors'}"])
