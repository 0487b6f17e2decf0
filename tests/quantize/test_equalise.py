"""Equalisation changes no output, evens out ranges, and heals a student that int8 alone ruins."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from burnish.distill.methods import methods
from burnish.distill.specialists import without_specialists
from burnish.distill.student import Block, ExpertBlock, Student
from burnish.distill.weights import read_student
from burnish.quantize import core
from burnish.quantize.calibration import Samples, draw_samples
from burnish.quantize.config import QuantizeConfig
from burnish.quantize.equalise import equalise
from burnish.quantize.xnnpack import XNNPACK
from burnish.runtime.bundle import EMBEDDED
from burnish.runtime.routing import Routing

TILE = 64
LOUD = 5


@pytest.fixture(scope="module")
def trained() -> Student:
    return without_specialists(read_student(EMBEDDED / "student.safetensors")).student.eval()


@pytest.fixture(scope="module")
def trajectories(trained: Student, quantize_config: QuantizeConfig) -> Samples:
    photos = Path(__file__).parents[2] / "recipes" / "photos" / "dev"
    return draw_samples(trained, Routing(), photos, TILE, quantize_config)


@torch.no_grad()
def restored(student: Student, samples: Samples) -> torch.Tensor:
    """Second iterations of all samples, each with the student's own features."""
    encode, refine = methods(student)["encode"], methods(student)["refine"]
    pictures = []
    for (image,), (_, *_, gates) in zip(samples["encode"], samples["refine"], strict=True):
        *features, tokens, _ = encode(image)
        pictures.append(refine(image, *features, *features[1:], tokens, gates)[0])
    return torch.cat(pictures)


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_the_student_computes_the_same(student: Student, samples: Samples, strength: float) -> None:
    equal = equalise(student, samples, strength)
    assert not torch.equal(equal.encoder.stem.weight, student.encoder.stem.weight)
    torch.testing.assert_close(restored(equal, samples), restored(student, samples), rtol=0, atol=2e-5)


def test_full_strength_gives_a_stream_one_range(student: Student, samples: Samples) -> None:
    equal = equalise(student, samples, 1.0)
    reaches: list[torch.Tensor] = []
    equal.encoder.level2[0].conv2.register_forward_pre_hook(lambda _, x: reaches.append(x[0].abs().amax((0, 2, 3))))
    with torch.no_grad():
        for (image,) in samples["encode"]:
            equal.encode(image)
    reach = torch.stack(reaches).amax(0)
    spoke = reach[reach > 1e-4]
    assert spoke.max() / spoke.min() < 1.01


def test_a_loud_channel_ruins_int8_and_equalisation_heals_it(
    trained: Student, trajectories: Samples, quantize_config: QuantizeConfig
) -> None:
    def error(student: Student) -> float:
        samples = _own(student, trajectories)
        graphs = core.quantize(student, TILE, XNNPACK, samples, quantize_config)
        with torch.no_grad():
            pairs = [(graphs["refine"](*row)[0], methods(student)["refine"](*row)[0]) for row in samples["refine"]]
        return sum(float((a - b).square().mean()) for a, b in pairs)

    harmed = _harm(trained)
    torch.testing.assert_close(restored(harmed, trajectories), restored(trained, trajectories), rtol=0, atol=1e-4)
    sound, plain, healed = error(trained), error(harmed), error(equalise(harmed, trajectories, 0.5))
    assert plain > 4 * sound
    assert healed < 1.2 * sound


def _harm(student: Student) -> Student:
    """The same function, with one hidden channel of every block of the refiner a hundred times as large as it was."""
    harmed = copy.deepcopy(student)
    with torch.no_grad():
        for block in harmed.refiner.modules():
            if isinstance(block, Block):
                outputs = [block.conv1.weight, block.conv1.bias]
                outputs += [block.lora_b.weight] if isinstance(block, ExpertBlock) else []
                for parameter in outputs:
                    assert parameter is not None
                    parameter[LOUD] *= 100
                block.conv2.weight[:, LOUD] /= 100
    return harmed


def _own(student: Student, samples: Samples) -> Samples:
    """The same pictures with this student's features."""
    encode = methods(student)["encode"]
    rows: Samples = {"encode": samples["encode"], "refine": []}
    with torch.no_grad():
        for (image,), (_, *_, gates) in zip(samples["encode"], samples["refine"], strict=True):
            *features, tokens, _ = encode(image)
            rows["refine"].append((image, *features, *features[1:], tokens, gates))
    return rows
