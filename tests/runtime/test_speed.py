"""A quantised program that is not faster than float is found, where both were timed on one device."""

from __future__ import annotations

from burnish.runtime.bundle import File, Manifest, Profile, Program, StudentInfo
from burnish.runtime.routing import Routing
from burnish.runtime.speed import UNMEASURED, describe_speed, not_faster, speeds

FP32, INT8 = "executorch-xnnpack-fp32", "executorch-xnnpack-int8"


def manifest(*profiles: tuple[str, str, float]) -> Manifest:
    names = (FP32, INT8, "coreml-fp16", "coreml-fp32", "coreml-w8a8", "onnx-fp32")
    return Manifest(
        format=1,
        student=StudentInfo(size="nano", config={}, parameters=1, macs={}, rank=1),
        tile=64,
        routing=Routing(),
        weights=File(path="student.safetensors", bytes=0, sha256="0" * 64),
        programs=tuple(
            Program(target=name.rpartition("-")[0], precision=name.rpartition("-")[2], files=()) for name in names
        ),
        profiles=tuple(
            Profile(device=device, program=program, encode_ms=(ms / 3, 0.1), refine_ms=(2 * ms / 3, 0.1))
            for device, program, ms in profiles
        ),
        licence="none",
    )


def test_nothing_measured_is_said_so_and_not_refused() -> None:
    assert describe_speed(manifest(), INT8) == UNMEASURED
    one_only = manifest(("phone", INT8, 50.0), ("host", FP32, 30.0), ("phone", "onnx-fp32", 20.0))
    assert describe_speed(one_only, INT8) == UNMEASURED
    assert not not_faster(one_only)


def test_a_faster_program_passes_and_a_slower_is_refused_with_its_figures() -> None:
    measured = manifest(("phone", FP32, 60.0), ("phone", INT8, 30.0), ("host", FP32, 30.0), ("host", INT8, 40.0))
    assert [(s.device, round(s.ratio, 2)) for s in speeds(measured)] == [("phone", 2.0), ("host", 0.75)]
    (slow,) = not_faster(measured)
    assert str(slow) == f"0.75 times as fast as {FP32} on host"
    assert describe_speed(measured, INT8) == f"2.00 times as fast as {FP32} on phone; {slow}"
    assert describe_speed(measured, FP32) == UNMEASURED


def test_the_fastest_float_program_of_the_target_is_the_rival() -> None:
    measured = manifest(("mac", "coreml-fp32", 60.0), ("mac", "coreml-fp16", 20.0), ("mac", "coreml-w8a8", 20.0))
    (slow,) = not_faster(measured)
    assert (slow.rival, slow.ratio) == ("coreml-fp16", 1.0)
