"""UniRestorer: the expert tree, the router's gates and losses, the published layout, a tiny one that trains."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from burnish.distill.data import Batch
from burnish.distill.macs import count_macs
from burnish.distill.teachers import unirestorer
from burnish.distill.teachers.dehazeformer import DehazeFormer, DehazeFormerConfig, Mixer
from burnish.distill.teachers.expert_tree import ExpertTree
from burnish.distill.teachers.unirestorer import (
    PUBLISHED,
    LocalMean,
    Route,
    SharedExperts,
    TreeObjective,
    UniRestorer,
    balance_loss,
    build,
    fold_conv_lora,
    granularity_loss,
)
from burnish.runtime.errors import InputError
from burnish.runtime.tree import LEAVES
from spandrel.architectures.NAFNet import NAFNet
from torch import Tensor, nn

LAYOUTS = Path(__file__).parent / "layouts"


@pytest.fixture
def tiny() -> UniRestorer:
    torch.manual_seed(0)
    return build("tiny")


@pytest.fixture(scope="module")
def published() -> UniRestorer:
    """As released, a billion parameters without memory."""
    with torch.device("meta"):
        return build("published")


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
        expert = NAFNet(width=32, enc_blk_nums=[2, 2, 4, 8], middle_blk_num=12, dec_blk_nums=[2, 2, 2, 2])
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


def test_the_whole_released_checkpoint_loads(published: UniRestorer) -> None:
    """Every key of the release, by its prefixes and the layouts of its experts; the spare expert of the third level too."""
    content = {n.removeprefix("experts."): t for n, t in published.state_dict().items() if not n.startswith("tree.")}
    haze = json.loads((LAYOUTS / "dehazeformer.json").read_text())
    for node in ("l1_experts.4", "l2_experts.17", "l2_experts.18"):
        own = {name.removeprefix(f"{node}.") for name in content if name.startswith(f"{node}.")}
        assert own == haze.keys(), node
    spare = {n.replace("l2_experts.21.", "l2_experts.22."): t for n, t in content.items() if "l2_experts.21." in n}
    published.load_published({"params": content | spare})
    del content["l1_experts.4.layer1.blocks.15.attn.QK.weight"]
    with pytest.raises(InputError, match=r"1 keys missing, first experts\.l1_experts\.4\.layer1"):
        published.load_published({"params": content})


def test_folding_leaves_plain_weights_alone() -> None:
    weight = torch.rand(2, 3)
    assert fold_conv_lora({"a.weight": weight})["a.weight"] is weight


def test_dehazeformer_has_its_published_layout_and_size() -> None:
    """25.44 M parameters and 279.7 G multiply-adds were published for DehazeFormer-L."""
    layout: dict[str, list[int]] = json.loads((LAYOUTS / "dehazeformer.json").read_text())
    with torch.device("meta"):
        network = DehazeFormer(DehazeFormerConfig())
        assert {name: list(value.shape) for name, value in network.state_dict().items()} == layout
        assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(25.44, abs=0.02)
        assert count_macs(lambda: network(torch.zeros(1, 3, 256, 256))) / 1e9 == pytest.approx(279.7, rel=0.01)


@pytest.mark.parametrize("shift", [0, 4])
@pytest.mark.parametrize("sides", [(16, 24), (12, 20)])
def test_windows_attend_within_themselves(shift: int, sides: tuple[int, int]) -> None:
    """Against the sum written out: every query, its window, the bias of their distance."""
    torch.manual_seed(0)
    mixer = Mixer(dim=6, heads=2, window=8, shift=shift, attends=True)
    x = torch.randn(1, 6, *sides)
    attended = mixer._attend(x, mixer.V(x))[0]
    before = [shift, shift]
    after = [(-side - shift) % 8 for side in sides]
    pad = (before[1], after[1], before[0], after[0])
    query, key, value = nn.functional.pad(torch.cat([mixer.QK(x), mixer.V(x)], 1), pad, mode="reflect")[0].chunk(3)
    for row, column in ((0, 0), (5, 11), (sides[0] - 1, sides[1] - 1)):
        y, z = row + shift, column + shift
        top, left = y // 8 * 8, z // 8 * 8
        for head in range(2):
            part = slice(3 * head, 3 * head + 3)
            places = [(i, j) for i in range(top, top + 8) for j in range(left, left + 8)]
            apart = torch.tensor([[float(y - i), float(z - j)] for i, j in places])
            bias = mixer.attn.meta(apart.sign() * (1 + apart.abs()).log())[:, head]
            scores = torch.stack([query[part, y, z] @ key[part, i, j] for i, j in places]) / 3**0.5 + bias
            expected = sum(w * value[part, i, j] for w, (i, j) in zip(scores.softmax(0), places, strict=True))
            torch.testing.assert_close(attended[part, row, column], expected, rtol=1e-4, atol=1e-5)


def test_nafnets_of_the_release_pool_as_widely_as_in_training() -> None:
    """Windows of 1.5 times the training patch, moved inwards at borders; smaller maps are averaged whole."""
    x = torch.rand(1, 2, 13, 9)
    torch.testing.assert_close(LocalMean(13)(x), x.mean((2, 3), keepdim=True))
    pooled = LocalMean(5)(x)
    assert pooled.shape == x.shape
    torch.testing.assert_close(pooled[0, 0, 6, 4], x[0, 0, 4:9, 2:7].mean())
    torch.testing.assert_close(pooled[0, 1, 0, 8], x[0, 1, :5, 4:].mean())
    with torch.device("meta"):
        network = unirestorer.BACKBONES["nafnet-local"]()
    windows = [module.side for module in network.modules() if isinstance(module, LocalMean)]
    assert windows == [384, 192, 96, *[48] * 28, 48, 96, 192, 384, 24]
    assert not any(isinstance(module, nn.AdaptiveAvgPool2d) for module in network.modules())
