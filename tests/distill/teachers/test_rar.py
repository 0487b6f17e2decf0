"""RAR: the flow, the sampler, the loop with roll-back, recurrent training, the authors' checkpoint."""

from __future__ import annotations

import warnings
from typing import Any

import burnish.distill  # noqa: F401  declares torchvision's operators
import pytest
import torch
from burnish.distill.data import Batch
from burnish.distill.teachers.assessor import Assessment, Assessor
from burnish.distill.teachers.rar import PUBLISHED, RAR, build, draw_times, interpolate
from burnish.runtime.errors import InputError
from burnish.runtime.tree import LEAVES
from torch import Tensor


@pytest.fixture
def teacher() -> RAR:
    torch.manual_seed(0)
    return build("tiny").eval()


def pictures(count: int = 2, side: int = 64) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1))


class Stub(Assessor):
    """Says nothing; its preferences are a list given, one of (B,) a comparison; quality is the latent's mean square."""

    def __init__(self, told: Assessment, preferences: list[list[float]]) -> None:
        super().__init__()
        self.told, self.preferences, self.asked = told, preferences, 0

    def identify(self, latent: Tensor) -> Assessment:
        return self.told

    def compare(self, new: Tensor, old: Tensor, original: Tensor) -> Tensor:
        self.asked += 1
        return torch.tensor(self.preferences[self.asked - 1])

    def quality(self, latent: Tensor, original: Tensor) -> Tensor:
        return latent.square().mean((1, 2, 3))


def halving(teacher: RAR, preferences: list[list[float]]) -> Stub:
    """Make every round halve the latent, and the assessor prefer as told."""
    stub = Stub(teacher.assessor.identify(teacher.encode(pictures())), preferences)
    teacher.assessor = stub  # type: ignore[assignment]
    teacher.sample = lambda degraded, velocity: degraded / 2  # type: ignore[method-assign]
    return stub


def test_latents_are_scaled_as_published() -> None:
    torch.manual_seed(0)
    small = {"block_out_channels": (8, 8, 8, 8), "layers_per_block": 1, "norm_num_groups": 4}
    transformer = PUBLISHED.transformer | {"num_layers": 1, "dual_attention_layers": (0,), "pos_embed_max_size": 16}
    sizes = {"width": 16, "heads": 2, "layers": 1, "token_layers": 1}
    teacher = RAR(
        PUBLISHED.model_copy(
            update={
                "side": 64,
                "autoencoder": PUBLISHED.autoencoder | small,
                "transformer": transformer | {"num_attention_heads": 1, "caption_projection_dim": 64},
                "assessor": PUBLISHED.assessor.model_copy(update=sizes),
            }
        )
    ).eval()
    picture = pictures()
    with torch.no_grad():
        latent = teacher.encode(picture)
        raw = teacher.autoencoder.encode(2 * picture - 1).latent_dist.mean
        torch.testing.assert_close(latent, (raw - 0.0609) * 1.5305)
        torch.testing.assert_close(teacher.decode(latent), (teacher.autoencoder.decode(raw).sample + 1) / 2)
        torch.testing.assert_close(teacher.encode(picture), latent, rtol=0, atol=0)  # no sample of the posterior
    assert latent.shape == (2, 16, 8, 8)
    assert teacher.restore(pictures(side=41), 2)[1].picture.shape == (2, 3, 41, 41)


def test_the_tiny_latent_space_loses_nothing(teacher: RAR) -> None:
    picture = pictures()
    with torch.no_grad():
        assert float((teacher.decode(teacher.encode(picture)) - picture).abs().max()) < 1e-3


def test_the_flow_by_hand() -> None:
    restored, degraded = torch.full((2, 1, 1, 1), 1.0), torch.full((2, 1, 1, 1), 5.0)
    between = interpolate(restored, degraded, torch.tensor([0.25, 1.0]))
    assert between.flatten().tolist() == [2.0, 5.0]
    velocity = degraded - restored
    assert (degraded - velocity).flatten().tolist() == [1.0, 1.0]


def test_times_are_logit_normal_and_shifted() -> None:
    torch.manual_seed(0)
    time = draw_times(20_000, 3.0)
    logit = torch.logit(time / (3 - 2 * time))  # the shift undone
    assert float(logit.mean()) == pytest.approx(0, abs=0.03)
    assert float(logit.std()) == pytest.approx(1, abs=0.03)
    assert float(time.median()) == pytest.approx(0.75, abs=0.01)


def test_the_sampler_takes_four_shifted_steps(teacher: RAR) -> None:
    degraded, constant, times = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8), list[float]()

    def velocity(latent: Tensor, time: Tensor) -> Tensor:
        if not times:
            torch.testing.assert_close(latent, degraded, rtol=0, atol=0)  # no noise at the start
        times.append(float(time[0]))
        return constant

    torch.testing.assert_close(teacher.sample(degraded, velocity), degraded - constant)
    assert len(times) == 4
    assert times[0] == 1
    # Thirds of the way, shifted: 3t / (1 + 2t). diffusers' last time is not quite zero.
    assert times[1:3] == pytest.approx([6 / 7, 3 / 5], abs=0.01)


def test_an_untrained_restorer_changes_nothing(teacher: RAR) -> None:
    for step in teacher.restore(pictures(side=50), 2):
        torch.testing.assert_close(step.picture, pictures(side=50))


@torch.no_grad()
def test_a_worse_round_is_rolled_back(teacher: RAR) -> None:
    """The first picture stops after round 1, the second goes on; both repeat what they kept."""
    stub = halving(teacher, [[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0]])
    image = pictures()
    start, trajectory = teacher.encode(image), teacher.rounds(image, 5)
    assert len(trajectory) == 5
    assert stub.asked == 3  # nobody is asked once all have stopped
    for index, halvings in enumerate(((1, 1), (1, 2), (1, 2), (1, 2), (1, 2))):
        for row, times in enumerate(halvings):
            expected = teacher.decode(start / 2**times)[row]
            torch.testing.assert_close(trajectory[index].picture[row], expected, rtol=1e-3, atol=1e-3)
            quality = trajectory[index].quality
            assert quality is not None
            assert float(quality[row]) == pytest.approx(float((start[row] / 2**times).square().mean()), rel=1e-5)


@torch.no_grad()
def test_a_picture_nothing_improves_comes_back_untouched(teacher: RAR) -> None:
    stub = halving(teacher, [[-1.0, -1.0]])
    image = pictures(side=50)
    for step in teacher.rounds(image, 3):
        torch.testing.assert_close(step.picture, image, rtol=0, atol=0)
    assert stub.asked == 1


def test_rounds_say_what_is_wrong(teacher: RAR) -> None:
    (step,) = teacher.restore(pictures(), 1)
    assert step.degradation is not None
    assert step.degradation.shape == (2, len(LEAVES))
    assert step.quality is not None
    assert 0 <= float(step.quality.min()) <= float(step.quality.max()) <= 1
    assert step.features is not None
    assert step.features.shape == (2, teacher.feature_width, 64, 64)


def test_recurrent_rounds_carry_the_published_weights(teacher: RAR, monkeypatch: pytest.MonkeyPatch) -> None:
    """With v = c always, round r misses by (z − r·c − z_hq) − c: the flow loss by hand, and its gradient over rounds."""
    assert teacher.config.round_weights == PUBLISHED.round_weights == (0.2, 0.4, 0.6, 1.0)
    constant = torch.tensor(0.01, requires_grad=True)
    monkeypatch.setattr(teacher, "velocity", lambda latent, time, told: constant.expand_as(latent))
    batch = Batch.untaught(pictures(), (pictures() * 0.5), torch.ones(2, len(LEAVES)))
    losses = teacher.objective()(batch)
    gap = (teacher.encode(batch.degraded) - teacher.encode(batch.clean)).detach()
    rounds = enumerate((0.2, 0.4, 0.6, 1.0), start=1)
    by_hand = sum(weight * (gap - index * constant).square().mean() for index, weight in rounds)
    torch.testing.assert_close(losses["flow"], by_hand)
    (ours,) = torch.autograd.grad(losses["flow"], constant)
    (expected,) = torch.autograd.grad(by_hand, constant)  # type: ignore[arg-type]
    torch.testing.assert_close(ours, expected)
    assert {"loss", "presence", "ranking", "quality", "psnr_0", "psnr_4"} <= losses.keys()


def test_the_assessor_is_not_taught_by_the_flow(teacher: RAR) -> None:
    torch.nn.init.normal_(teacher.transformer.proj_out.weight, std=0.1)
    batch = Batch.untaught(pictures(), pictures() * 0.5, torch.ones(2, len(LEAVES)))
    teacher.objective()(batch)["flow"].backward()
    assert teacher.assessor.patches.proj.weight.grad is None
    assert float(teacher.assessor.queries.grad.abs().sum()) > 0  # type: ignore[union-attr]
    assert all(parameter.grad is None for parameter in teacher.autoencoder.parameters())


# --- the authors' checkpoint -------------------------------------------------------------------------------------------


def original_layout(transformer: Any) -> dict[str, Tensor]:
    """The same weights under the names of Stability AI's MMDiT-X (x is the picture's stream, context the text's)."""
    theirs = dict(transformer.state_dict())
    swapped: dict[str, Tensor] = {}
    fixed = {
        "pos_embed.proj.": "x_embedder.proj.",
        "time_text_embed.timestep_embedder.linear_1.": "t_embedder.mlp.0.",
        "time_text_embed.timestep_embedder.linear_2.": "t_embedder.mlp.2.",
        "time_text_embed.text_embedder.linear_1.": "y_embedder.mlp.0.",
        "time_text_embed.text_embedder.linear_2.": "y_embedder.mlp.2.",
        "context_embedder.": "context_embedder.",
        "norm_out.linear.": "final_layer.adaLN_modulation.1.",
        "proj_out.": "final_layer.linear.",
    }
    blocks = {
        "attn.norm_q.": "x_block.attn.ln_q.",
        "attn.norm_k.": "x_block.attn.ln_k.",
        "attn.norm_added_q.": "context_block.attn.ln_q.",
        "attn.norm_added_k.": "context_block.attn.ln_k.",
        "attn.to_out.0.": "x_block.attn.proj.",
        "attn.to_add_out.": "context_block.attn.proj.",
        "attn2.norm_q.": "x_block.attn2.ln_q.",
        "attn2.norm_k.": "x_block.attn2.ln_k.",
        "attn2.to_out.0.": "x_block.attn2.proj.",
        "norm1.linear.": "x_block.adaLN_modulation.1.",
        "norm1_context.linear.": "context_block.adaLN_modulation.1.",
        "ff.net.0.proj.": "x_block.mlp.fc1.",
        "ff.net.2.": "x_block.mlp.fc2.",
        "ff_context.net.0.proj.": "context_block.mlp.fc1.",
        "ff_context.net.2.": "context_block.mlp.fc2.",
    }
    joined = {
        "x_block.attn.qkv.": ("attn.to_q.", "attn.to_k.", "attn.to_v."),
        "x_block.attn2.qkv.": ("attn2.to_q.", "attn2.to_k.", "attn2.to_v."),
        "context_block.attn.qkv.": ("attn.add_q_proj.", "attn.add_k_proj.", "attn.add_v_proj."),
    }
    last = len(transformer.transformer_blocks) - 1
    for new, old in fixed.items():
        for kind in ("weight", "bias"):
            swapped[old + kind] = theirs[new + kind]
    for index in range(last + 1):
        ours, original = f"transformer_blocks.{index}.", f"joint_blocks.{index}."
        for new, old in blocks.items():
            for kind in ("weight", "bias"):
                if ours + new + kind in theirs:
                    swapped[original + old + kind] = theirs[ours + new + kind]
        for old, parts in joined.items():
            for kind in ("weight", "bias"):
                if ours + parts[0] + kind in theirs:
                    swapped[original + old + kind] = torch.cat([theirs[ours + part + kind] for part in parts])
    # Scale and shift of the norms that have no attention after them are the other way round.
    for name in ("final_layer", f"joint_blocks.{last}.context_block"):
        for kind in ("weight", "bias"):
            key = f"{name}.adaLN_modulation.1.{kind}"
            swapped[key] = torch.cat(swapped[key].chunk(2)[::-1])
    return swapped


@pytest.mark.parametrize("layout", ["diffusers", "original"])
def test_the_authors_prefixes(teacher: RAR, layout: str) -> None:
    torch.manual_seed(1)
    source = build("tiny")
    torch.nn.init.normal_(source.transformer.proj_out.weight)
    tensors = dict(source.transformer.state_dict()) if layout == "diffusers" else original_layout(source.transformer)
    table = "pos_embed.pos_embed" if layout == "diffusers" else "pos_embed"
    content = {f"model.{name}": value for name, value in tensors.items()} | {f"model.{table}": torch.zeros(1, 7, 64)}
    content |= {"connector.queries": torch.zeros(2), "assessment.lora.weight": torch.zeros(2)}
    own = teacher.transformer.pos_embed.pos_embed.clone()
    assert float(own.abs().sum()) > 0
    with pytest.warns(UserWarning, match=r"not loaded: assessment\., connector\."):
        teacher.load_published({"state_dict": content, "epoch": 3})
    for name, value in source.transformer.state_dict().items():
        if name != "pos_embed.pos_embed":
            torch.testing.assert_close(teacher.transformer.state_dict()[name], value, rtol=0, atol=0)
    torch.testing.assert_close(teacher.transformer.pos_embed.pos_embed, own, rtol=0, atol=0)


def test_another_checkpoint_is_refused(teacher: RAR) -> None:
    with pytest.raises(InputError, match=r"looks like NAFNet.*'model\.'.*first: middle_blks\.0\.beta"):
        teacher.load_published({"state_dict": {"middle_blks.0.beta": torch.zeros(1)}})
    with pytest.raises(InputError, match=r"missing, first .*unexpected, first extra"):
        teacher.load_published({"state_dict": {"model.extra": torch.zeros(1)}})
    broken = {"model.joint_blocks.0.x": torch.zeros(1), "model.context_embedder.weight": torch.zeros(1, 1)}
    with pytest.raises(InputError, match="has no 'x_embedder"):
        teacher.load_published({"state_dict": broken})


def test_a_folder_without_the_autoencoder_says_so(teacher: RAR, tmp_path: Any) -> None:
    with pytest.raises(InputError, match=r"vae/diffusion_pytorch_model\.safetensors"):
        teacher.load_base(tmp_path)


def test_the_published_structure() -> None:
    """Sizes of SD3.5-medium, its layouts, and the shapes of one round's parts; nothing is allocated."""
    with torch.device("meta"):
        teacher = build("published").eval()
        image = torch.zeros(1, 3, 100, 120)
        latent = teacher.encode(teacher.to_side(image))
        assert latent.shape == (1, 16, 32, 32)
        told = teacher.assessor.identify(latent)
        assert told.tokens.shape == (1, 154, 4096)
        assert told.pooled.shape == (1, 2048)
        assert teacher.velocity(latent, torch.ones(1), told).shape == latent.shape
        assert teacher.decode(latent).shape == (1, 3, 256, 256)
        with torch.no_grad():
            (step,) = teacher.rounds(image, 1)
    assert step.picture.shape == image.shape
    assert len(teacher.transformer.transformer_blocks) == 24
    assert teacher.transformer.inner_dim == 1536
    assert sum(p.numel() for p in teacher.autoencoder.parameters()) == 83_819_683
    assert not teacher.config.residual
    theirs = {f"model.{name}": value for name, value in original_layout(teacher.transformer).items()}
    assert theirs["model.joint_blocks.12.x_block.attn2.qkv.weight"].shape == (4608, 1536)
    assert "model.joint_blocks.13.x_block.attn2.qkv.weight" not in theirs
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is left over
        teacher.load_published({"state_dict": theirs})
    with pytest.raises(InputError, match="has no 'y_embedder"):
        teacher.load_published({"state_dict": {k: v for k, v in theirs.items() if "y_embedder" not in k}})
