"""UniRestorer: the expert tree, the router's gates and losses, the published layout, a tiny one that trains."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from burnish.distill.data import Batch, DegradedPatches, Mixture, Photographs, list_pictures
from burnish.distill.metrics import psnr
from burnish.distill.recipe import Schedule
from burnish.distill.teachers import unirestorer
from burnish.distill.teachers.expert_tree import ExpertTree
from burnish.distill.teachers.registry import create
from burnish.distill.teachers.unirestorer import (
    PUBLISHED,
    Route,
    SharedExperts,
    TreeObjective,
    UniRestorer,
    balance_loss,
    build,
    fold_conv_lora,
    granularity_loss,
)
from burnish.distill.training import train
from burnish.runtime.errors import InputError
from burnish.runtime.tree import LEAVES
from conftest import PHOTOS
from safetensors.torch import load_file
from torch import Tensor, nn

NOISE = Mixture(members=(0, 1), leaves={"noise": 1.0})


@pytest.fixture
def tiny() -> UniRestorer:
    torch.manual_seed(0)
    return build("unirestorer", "tiny")


@pytest.fixture(scope="module")
def published() -> UniRestorer:
    """As released, a billion parameters without memory."""
    with torch.device("meta"):
        return build("unirestorer", "published")


AXES = torch.eye(12)


def grown(tree: ExpertTree) -> tuple[Tensor, Tensor]:
    """A tree over three far groups of two near blobs each; the embeddings and their blob."""
    torch.manual_seed(0)
    blob = torch.arange(120) % 6
    group = AXES[blob // 2]
    embeddings = 10 * group + 2 * AXES[3 + blob] + 0.05 * torch.randn(120, 12) + 3
    tree.grow(embeddings, (blob[:, None] == torch.arange(7)).float())
    return embeddings, blob


def test_the_tree_has_the_released_shape() -> None:
    tree = ExpertTree(PUBLISHED.children, 4)
    assert tree.levels == (1, 7, 22)
    assert [len(tree.offspring[node]) for node in range(1, 8)] == [3, 3, 3, 7, 2, 2, 2]
    assert tree.paths[0].tolist() == [0, 1, 8]
    assert tree.paths[15].tolist() == [0, 4, 23]
    assert tree.paths[21].tolist() == [0, 7, 29]


def test_embeddings_descend_by_nearest_centres_into_their_own_cluster() -> None:
    tree = ExpertTree(((3,), (2, 2, 2)), 12)
    assert not tree.grown
    embeddings, blob = grown(tree)
    leaves = tree.descend(embeddings)
    assert tree.grown
    for k in range(6):
        assert len(leaves[blob == k].unique()) == 1
        assert tree.presence[tree.paths[leaves[k], -1], k] == 1
    # Blobs of one group have one parent.
    parents = tree.paths[leaves, 1]
    for k in range(0, 6, 2):
        assert parents[k] == parents[k + 1]
    torch.testing.assert_close(tree.nearest(embeddings), tree.finest[leaves])


def test_the_largest_cluster_is_split_most_and_small_ones_still_fill_their_leaves() -> None:
    tree = ExpertTree(((2,), (1, 3)), 12)
    groups = torch.cat([torch.zeros(20), torch.ones(2)]).long()
    tree.grow(AXES[groups] + 0.01 * torch.randn(22, 12), torch.zeros(22, 7))
    assert (tree.descend(AXES[:1]) >= 1).all()
    few = ExpertTree(((2,), (3, 3)), 12)
    few.grow(AXES[:4], torch.zeros(4, 7))
    assert torch.isfinite(few.centres).all()


def test_the_largest_leaf_and_level_pick_the_expert(tiny: UniRestorer) -> None:
    nothing = torch.zeros(3, 1)
    leaf, level = torch.zeros(3, 4), torch.zeros(3, 3)
    leaf[0, 2], level[0, 2] = 1, 1
    leaf[1, 3], level[1, 1] = 1, 1
    leaf[2, 1] = 1
    assert tiny.nodes(Route(nothing, nothing, leaf, level)) == [5, 2, 0]


def test_gates_are_noisy_in_training_only(tiny: UniRestorer) -> None:
    embedding = torch.randn(6, tiny.daclip_model.width)
    assert torch.equal(tiny.route(embedding).leaf, torch.zeros(6, 4))
    tiny.train()
    noise = torch.stack([tiny.route(embedding).level for _ in range(400)])
    # The standard deviation of an untrained gate: softplus(0) + 1e-2.
    assert float(noise.std()) == pytest.approx(math.log(2) + 1e-2, rel=0.05)


def test_the_leaf_gate_starts_by_reading_centres(tiny: UniRestorer) -> None:
    tiny.grow(torch.randn(60, 32), torch.zeros(60, 7))
    logits = tiny.lf_gate(tiny.tree.finest)[:, :4]
    assert logits.argmax(1).tolist() == [0, 1, 2, 3]


def test_losses_by_hand() -> None:
    estimate, centre = torch.tensor([[0.0, 1.0]]), torch.tensor([[2.0, 1.0]])
    variance = torch.tensor([[4.0, 1.0]])
    expected = (4 / 8 + 0.5 * math.log(4)) / 2
    assert float(granularity_loss(estimate, variance, centre)) == pytest.approx(expected)
    assert float(balance_loss(torch.full((5, 3), 1 / 3))) == pytest.approx(0, abs=1e-6)
    # Loads 3 and 1: mean 2, variance 2.
    assert float(balance_loss(torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 1.0]]))) == pytest.approx(0.5)


def test_the_objective_adds_its_parts_with_the_published_weights(tiny: UniRestorer) -> None:
    tiny.grow(torch.randn(60, 32), torch.zeros(60, 7))
    losses = TreeObjective(tiny)(batch(4))
    total = losses["experts"] + losses["router"] + 0.1 * losses["dg"] + 0.01 * losses["aux"]
    torch.testing.assert_close(losses["loss"], total)


def batch(count: int) -> Batch:
    return Batch.untaught(torch.rand(count, 3, 32, 32), torch.rand(count, 3, 32, 32), torch.rand(count, len(LEAVES)))


def test_an_adapter_starts_as_the_base_and_changes_its_own_pictures_only() -> None:
    experts = SharedExperts("nafnet-tiny", 4)
    nn.init.normal_(experts.base.ending.base_layer.weight, std=0.1)
    image = torch.rand(3, 3, 16, 16)
    base = experts(image, [0, 0, 0])
    torch.testing.assert_close(experts(image, [1, 2, 3]), base)
    for name, parameter in experts.named_parameters():
        if "lora_B.node2" in name:
            nn.init.normal_(parameter, std=0.1)
    changed = (experts(image, [1, 2, 3]) - base).flatten(1).abs().amax(1)
    assert changed[1] > 1e-3
    assert changed[[0, 2]].max() < 1e-5
    scales = {layer.scaling["node1"] for layer in experts.base.modules() if hasattr(layer, "scaling")}
    assert scales == {2.0}


def test_the_published_router_and_experts(published: UniRestorer) -> None:
    names = published.state_dict()
    for head in (published.mu, published.sigma):
        linear = [layer for layer in head if isinstance(layer, nn.Linear)]
        assert [tuple(layer.weight.shape) for layer in linear] == [(512, 512)] * 5
        assert all(layer.bias is None for layer in linear)
        assert isinstance(head[-1], nn.BatchNorm1d)
        assert all(layer.negative_slope == 0.1 for layer in head if isinstance(layer, nn.LeakyReLU))
    assert names["lf_gate.0.weight"].shape == (44, 512)
    assert names["layer_gate.0.weight"].shape == (6, 512)
    own = {name.removeprefix("experts.") for name in names if not name.startswith("tree.")}
    prefixes = {".".join(name.split(".")[:2]) if "_experts." in name else name.split(".")[0] for name in own}
    experts = {"l0_experts.0", *(f"l1_experts.{i}" for i in range(7)), *(f"l2_experts.{i}" for i in range(22))}
    assert prefixes == experts | {
        "daclip_model",
        "mu",
        "sigma",
        "lf_gate",
        "layer_gate",
        "gamma",
        "beta",
        "mean",
        "std",
    }


def test_experts_and_embedding_of_the_paper_have_627_million_parameters(published: UniRestorer) -> None:
    """The paper's tree of 1, 4 and 8 experts, all NAFNets of 29.16 M."""

    def millions(module: nn.Module) -> float:
        return sum(parameter.numel() for parameter in module.parameters()) / 1e6

    with torch.device("meta"):
        expert = unirestorer.BACKBONES["nafnet-32"]()
    assert millions(expert) == pytest.approx(29.16, abs=0.005)
    router = millions(published.mu) + millions(published.sigma)
    assert millions(published.daclip_model) + router + 13 * millions(expert) == pytest.approx(627.5, abs=0.5)


def test_a_published_checkpoint_loads() -> None:
    """In the published layout: names at the top level, DA-CLIP's second image tower, conv-LoRA unfolded, a spare expert."""
    config = unirestorer.UniRestorerConfig(
        clip="tiny",
        children=((2,), (1, 1)),
        experts=(("nafnet-tiny",), ("nafnet-tiny",) * 2, ("nafnet-tiny",) * 2),
        multiple=4,
        embedding_samples=1,
        tree_samples=1,
    )
    source, target = UniRestorer(config).eval(), UniRestorer(config).eval()
    content = {n.removeprefix("experts."): t for n, t in source.state_dict().items() if not n.startswith("tree.")}
    layer = "l2_experts.1.intro"
    weight = content.pop(f"{layer}.weight")
    content[f"{layer}.conv.weight"] = torch.zeros_like(weight)
    # loralib factorises a kernel of k×k as (out·k, r·k) @ (r·k, in·k).
    content[f"{layer}.lora_A"] = torch.zeros(24, 9)
    content[f"{layer}.lora_A"][:9] = torch.eye(9)
    content[f"{layer}.lora_B"] = torch.zeros(48, 24)
    content[f"{layer}.lora_B"][:, :9] = weight.reshape(48, 9) / 2
    content |= {f"l2_experts.2.{n}": torch.zeros(1) for n in ("intro.weight", "ending.weight")}
    content["daclip_model.visual.proj"] = torch.zeros(1)
    target.load_published({"params": content})
    for name, value in source.state_dict().items():
        torch.testing.assert_close(target.state_dict()[name], value)
    content.pop("mu.0.weight")
    with pytest.raises(InputError, match=r"looks like UniRestorer.*first mu\.0\.weight"):
        target.load_published({"params": content})


def test_folding_leaves_plain_weights_alone() -> None:
    weight = torch.rand(2, 3)
    assert fold_conv_lora({"a.weight": weight})["a.weight"] is weight


def test_a_tiny_one_learns_a_tree_and_improves_photographs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    teacher = create("unirestorer", "tiny")
    assert isinstance(teacher, UniRestorer)
    schedule = Schedule(steps=150, batch=4, patch=48, workers=0, warmup=10, ema=0.9, learning_rate=2e-3)
    photographs = Photographs(PHOTOS / "train", NOISE, 48, 0)
    weights = train(teacher.objective(), schedule, photographs, tmp_path, lambda _: None)
    teacher.load_state_dict(load_file(weights))
    teacher.eval()
    patches = DegradedPatches(list_pictures(PHOTOS / "eval"), NOISE, 96, 24, seed=5)
    samples = [patches[i] for i in range(24)]
    clean, degraded = torch.stack([s.clean for s in samples]), torch.stack([s.degraded for s in samples])
    (first,) = teacher.restore(degraded, 1)
    before, after = psnr(degraded, clean).mean(), psnr(first.picture, clean).mean()
    assert after > before + 1, f"{before:.2f} → {after:.2f} dB"
    assert teacher.tree.grown
    assert first.features is not None
    assert first.features.shape == (24, teacher.feature_width, 1, 1)
    assert first.degradation is not None
    assert first.degradation.shape == (24, len(LEAVES))
