"""A degradation the student never saw: learned by one new expert, while the others stay as they are."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch
from burnish.cli.recipe import DistillSection
from burnish.cli.training import add_expert_command, train_section
from burnish.distill import leaves
from burnish.distill import pairs as pairs_module
from burnish.distill.degradations import KINDS, degrade
from burnish.distill.distillation import iterate
from burnish.distill.experts import EXPERT_SCHEDULE, SLOPE, LeakyGradients, add_expert, new_entries
from burnish.distill.leaves import CLOSED, fit_leaf, see_known
from burnish.distill.metrics import psnr, quality_of
from burnish.distill.pairs import Pairs
from burnish.distill.recipe import Schedule
from burnish.distill.specialists import without_specialists
from burnish.distill.student import HIDDEN
from burnish.distill.weights import Trained, read_student
from burnish.export.context import Context
from burnish.export.targets import select
from burnish.export.writer import write_bundle
from burnish.quantize.calibration import draw_samples
from burnish.quantize.config import QuantizeConfig
from burnish.runtime import Restorer
from burnish.runtime.bundle import EMBEDDED
from burnish.runtime.errors import InputError
from burnish.runtime.pictures import Picture, read, write
from numpy.typing import NDArray
from rich.console import Console
from shared import PHOTOS, refine, stack

RECIPE = PHOTOS.parent / "demo.yaml"  # whose folder relative paths would be of
Array = NDArray[np.float32]


def underwater(picture: Array) -> Array:
    """Red is lost, blue and green are veiled: none of the seven leaves does that."""
    return np.clip(picture * np.float32([0.35, 0.8, 0.85]) + np.float32([0.0, 0.12, 0.18]), 0, 1).astype(np.float32)


@pytest.fixture(scope="module")
def embedded() -> Trained:
    return read_student(EMBEDDED / "student.safetensors")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    for index, path in enumerate(sorted((PHOTOS / "train").glob("*.jpg"))):
        clean = read(path).rgb
        for kind, picture in (("clean", clean), ("degraded", underwater(clean))):
            (folder / kind).mkdir(exist_ok=True)
            write(Picture(picture), folder / kind / f"{index}.png")
    return folder


def learn(leaf: str, pairs: Path, out: Path, steps: int) -> Path:
    schedule = EXPERT_SCHEDULE.model_copy(update={"steps": steps, "workers": 0})
    return add_expert_command(leaf, pairs, "weather", None, schedule, out, Console(quiet=True))


def test_a_new_expert_changes_nothing_before_it_learns(embedded: Trained) -> None:
    grown = add_expert(embedded, "water", "weather")
    assert grown.student.config.experts.index("water") == len(embedded.routing.tree) + 3
    picture = torch.rand(2, 3, 64, 64)
    for before, after in zip(refine(embedded, picture, 2), refine(grown, picture, 2), strict=True):
        assert (before - after).abs().max() < 1e-4


def test_a_silent_unit_lets_a_little_of_the_gradient_through_and_computes_what_it_did() -> None:
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0)).requires_grad_()
    with LeakyGradients(SLOPE):
        y = torch.relu(x)
        y.sum().backward()
    assert torch.equal(y, torch.relu(x))
    assert x.grad is not None
    torch.testing.assert_close(x.grad, torch.where(x > 0, 1.0, SLOPE))


def test_a_student_that_finds_nothing_passes_gradients_on(embedded: Trained) -> None:
    """Nearly all units before the correction are silent on a picture in which nothing is found."""
    photo = read(next((PHOTOS / "eval").glob("*.png"))).rgb[:128, :128]
    block = embedded.student.refiner.level3[0]
    sizes: list[float] = []
    for context in (contextlib.nullcontext(), LeakyGradients(SLOPE)):
        with context:
            step = next(iterate(embedded.student, embedded.routing, stack([underwater(photo)]), 1))
            (step.restored - stack([photo])).square().mean().backward()
        sizes.append(float(block.conv1.weight.grad.norm()))
        embedded.student.zero_grad()
    assert sizes[1] > 10 * sizes[0], sizes


def test_a_second_new_leaf_keeps_the_unit_of_the_first(embedded: Trained) -> None:
    first = add_expert(embedded, "dust", "detail")
    with torch.no_grad():
        for head in (first.student.encoder.head, first.student.refiner.head):
            head.hidden.weight[HIDDEN:] = 0.3
            head.output.weight[:, HIDDEN:] = 0.5
    second = add_expert(first, "water", "weather")  # comes before the first in the tree
    picture = torch.rand(2, 3, 64, 64)
    one, other = (next(iterate(trained.student, trained.routing, picture, 1)) for trained in (first, second))
    assert ((one.quality - next(iterate(embedded.student, embedded.routing, picture, 1)).quality).abs() > 1e-3).all()
    torch.testing.assert_close(one.quality, other.quality)
    place = [2 + second.routing.leaves.index(leaf) for leaf in first.routing.leaves]
    before, after = (trained.student.encode(picture).assessment for trained in (first, second))
    torch.testing.assert_close(after[:, [0, 1, *place]], before)
    closed = 2 + second.routing.leaves.index("water")
    assert (second.student.encoder.head.output.weight[closed] == 0).all()
    assert (after[:, closed] == CLOSED).all()


@pytest.mark.parametrize(("leaf", "parent"), [("rain", "weather"), ("fog", "sky"), ("../x", "weather")])
def test_a_bad_name_is_refused(embedded: Trained, leaf: str, parent: str) -> None:
    with pytest.raises(InputError):
        add_expert(embedded, leaf, parent)


def test_a_degradation_that_cannot_be_told_is_refused(
    embedded: Trained, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaves, "PRESENT", 60)
    monkeypatch.setattr(leaves, "KNOWN", 30)
    monkeypatch.setattr(pairs_module, "LOOK", 64)
    for half in ("clean", "degraded"):
        (tmp_path / half).symlink_to(pairs / "clean")
    grown = add_expert(embedded, "nothing", "weather")
    source = Pairs(tmp_path, grown.routing, "nothing", 64, 0)
    with pytest.raises(InputError, match="nothing cannot be told from"):
        fit_leaf(grown.student, "nothing", source, see_known(grown.student, source))
    (tmp_path / "degraded").unlink()
    (tmp_path / "degraded").mkdir()
    with pytest.raises(InputError, match="no picture"):
        Pairs(tmp_path, grown.routing, "nothing", 64, 0).samples(0, 1)


def test_the_new_degradation_is_learned_and_the_others_lose_nothing(
    embedded: Trained, pairs: Path, tmp_path: Path
) -> None:
    grown = read_student(learn("water", pairs, tmp_path / "run", 600))
    photos = [read(path).rgb for path in sorted((PHOTOS / "eval").glob("*.png"))]
    held_out = [photo[y : y + 256, x : x + 256] for photo in photos for y, x in ((40, 200), (240, 20))]
    clean = stack(held_out)

    def gains(pictures: list[Array]) -> list[float]:
        """What the new student is better by, in dB, after each of two iterations."""
        before, after = (
            [float(psnr(picture, clean).mean()) for picture in refine(trained, stack(pictures), 2)]
            for trained in (embedded, grown)
        )
        return [b - a for a, b in zip(before, after, strict=True)]

    gained = gains([underwater(picture) for picture in held_out])
    assert min(gained) > 3, gained
    for kind in KINDS:
        gained = gains([degrade(picture, {kind: 0.7}, seed) for seed, picture in enumerate(held_out)])
        assert min(gained) > -0.02, f"{kind}: {gained}"
    gained = gains(held_out)
    assert min(gained) > -0.02, f"clean: {gained}"

    # Predicted quality has learnt it, and judges all else as before.
    degraded = stack([underwater(picture) for picture in held_out])
    first = next(iterate(grown.student, grown.routing, degraded, 1))
    before = first.estimate.assessment[:, :1].sigmoid()
    assert (before[:, 0] - quality_of(psnr(degraded, clean))).abs().mean() < 0.06
    # Of most: a few photographs do not teach a head every picture.
    assert (first.quality > before).float().mean() > 0.8
    apart: list[float] = []
    for kind in KINDS:
        pictures = stack([degrade(picture, {kind: 0.7}, seed) for seed, picture in enumerate(held_out)])
        one, other = (next(iterate(trained.student, trained.routing, pictures, 1)) for trained in (embedded, grown))
        torch.testing.assert_close(one.estimate.assessment[:, 0], other.estimate.assessment[:, 0], rtol=0, atol=0.1)
        apart += (one.quality - other.quality).abs().flatten().tolist()
    # Of nearly all: silent is what corrects it on the known pictures that were drawn.
    assert sum(difference > 0.005 for difference in apart) <= len(apart) // 50, apart

    old = embedded.student.state_dict()
    for name, value in grown.student.state_dict().items():
        untouched = ~new_entries(name, value, grown.student.config, "water")
        torch.testing.assert_close(value[untouched], old[name].flatten(), rtol=0, atol=0)

    # The default policy keeps what the expert does.
    few = draw_samples(grown.student, grown.routing, PHOTOS / "dev", 256, QuantizeConfig(pictures=1, iterations=1))
    context = Context(grown, 256, None, few)
    bundle = write_bundle(tmp_path / "water.bundle", context, select(["onnx-fp32"]), "a test", lambda _: None)
    restorer = Restorer.load(bundle, backend="onnxruntime", threads=1)
    restored = [restorer.restore((underwater(picture) * 255).round().astype(np.uint8)) for picture in held_out]
    kept = psnr(stack([result.picture.rgb for result in restored]), clean) - psnr(degraded, clean)
    assert float(kept.mean()) > 2.5, [result.reason for result in restored]

    # Killed before the last file was written, or run again, it writes the same.
    weights = tmp_path / "run" / "student.safetensors"
    written = weights.read_bytes()
    weights.unlink()
    assert learn("water", pairs, tmp_path / "run", 600).read_bytes() == written

    # The folder is this run's: another expert does not take its weights.
    with pytest.raises(InputError, match=r"holds a run with another expert .*another --out"):
        learn("smoke", pairs, tmp_path / "run", 600)


def test_an_expert_that_learns_alone_leaves_all_else_as_it_is(embedded: Trained, tmp_path: Path) -> None:
    schedule = Schedule(steps=3, batch=2, patch=32, muon=False, weight_decay=0, warmup=1, clip=100, ema=0, workers=0)
    section = DistillSection(photos=str(PHOTOS / "train"), start="embedded", expert="haze", schedule=schedule)
    console = Console(quiet=True)
    path = train_section(section, None, RECIPE, PHOTOS / "train", tmp_path / "run", console)
    after = read_student(path).student.state_dict()
    before = without_specialists(embedded).student.state_dict()
    for name, value in before.items():
        own = torch.zeros_like(value, dtype=torch.bool)
        if "lora" in name:
            own = new_entries(name, value, embedded.student.config, "haze")
        torch.testing.assert_close(after[name][~own], value[~own], rtol=0, atol=0)
        assert not own.any() or not torch.equal(after[name][own], value[own])
    with pytest.raises(InputError, match="unknown expert 'fog'; expected one of weather"):
        train_section(section.model_copy(update={"expert": "fog"}), None, RECIPE, PHOTOS / "train", tmp_path, console)
