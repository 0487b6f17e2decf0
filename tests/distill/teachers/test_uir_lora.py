"""UIR-LoRA: adapters that add up, a peaked router, sd-turbo's shape, img2img-turbo's files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from burnish.distill.teachers.degradation_clip import DegradationCLIP
from burnish.distill.teachers.uir_lora import (
    CONFIGS,
    DEGRADATIONS,
    LEAF_OF,
    ROUTER_FILE,
    SD_TURBO_FILES,
    UNET_TARGETS,
    VAE_TARGETS,
    WORD_OF,
    Base,
    UIRLoRA,
    build,
)
from burnish.distill.weights import load_teacher
from burnish.runtime.errors import InputError
from burnish.runtime.tree import LEAVES
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel


@pytest.fixture
def teacher() -> UIRLoRA:
    torch.manual_seed(0)
    made = build("tiny").eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if ".lora_B." in name:  # adapters start as the identity
                parameter.normal_(std=0.02)
    return made


def picture(*sides: int) -> Tensor:
    return torch.rand(2, 3, *sides, generator=torch.Generator().manual_seed(1))


def weights(**chosen: float) -> Tensor:
    return torch.tensor([[chosen.get(name, 0.0) for name in DEGRADATIONS]])


def layout(
    teacher: UIRLoRA, degradation: str, unet_name: str = "default", vae_name: str = "vae_skip"
) -> dict[str, Any]:
    """What img2img-turbo saves of a model: adapters of one name, skips, the UNet's first convolution."""

    def part(network: Any, shared: str, adapter: str) -> dict[str, Tensor]:
        found = {
            n: v
            for n, v in network.state_dict().items()
            if f".{degradation}." in n or (shared in n and "lora_" not in n)
        }
        return {n.replace(f".{degradation}.", f".{adapter}."): v.clone() for n, v in found.items()}

    return {
        "rank_unet": 8,
        "rank_vae": 4,
        "unet_lora_target_modules": list(UNET_TARGETS),
        "vae_lora_target_modules": list(VAE_TARGETS),
        "state_dict_unet": {n: v for n, v in part(teacher.unet, "conv_in.", unet_name).items()},
        "state_dict_vae": part(teacher.vae, "skip_conv_", vae_name),
    }


def test_a_fresh_tiny_model_reconstructs() -> None:
    image = picture(32, 32)
    out = build("tiny").restore(image, 1)[0].picture
    assert (out - image).abs().mean() < 0.02


@torch.no_grad()
def test_active_adapters_add_their_scaled_outputs(teacher: UIRLoRA) -> None:
    layer = teacher.vae.encoder.down_blocks[0].resnets[0].conv1
    x = torch.randn(2, 16, 8, 8)
    base = layer.get_base_layer()(x)

    def delta(chosen: Tensor) -> Tensor:
        active = [name for name, used in zip(DEGRADATIONS, (chosen != 0).any(0).tolist(), strict=True) if used]
        with teacher.mixed(active, chosen):
            return layer(x) - base

    rainy, hazy = delta(weights(rainy=1).repeat(2, 1)), delta(weights(hazy=1).repeat(2, 1))
    assert rainy.abs().max() > 1e-3
    torch.testing.assert_close(delta(weights(rainy=0.7, hazy=0.3).repeat(2, 1)), 0.7 * rainy + 0.3 * hazy)
    each = delta(torch.cat([weights(rainy=1), weights(hazy=0.5)]))  # a weight a picture
    torch.testing.assert_close(each, torch.stack([rainy[0], 0.5 * hazy[1]]))
    assert not delta(weights().repeat(2, 1)).any()
    assert not layer.merged


@torch.no_grad()
def test_pictures_of_a_batch_do_not_influence_each_other(teacher: UIRLoRA) -> None:
    image, chosen = picture(16, 16), torch.cat([weights(noisy=1), weights(rainy=0.6, hazy=0.4)])
    together = teacher.one_step(image, chosen)
    for row in range(2):
        alone = teacher.one_step(image[row : row + 1], chosen[row : row + 1])
        for whole, single in zip(together, alone, strict=True):
            torch.testing.assert_close(whole[row : row + 1], single, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_router_keeps_the_top_and_renormalises(teacher: UIRLoRA) -> None:
    likelihoods = torch.tensor([[0.5, 0.3, 0.1, *[0.1 / 7] * 7]])
    routed = teacher.route(likelihoods)
    torch.testing.assert_close(routed[0, :3], torch.tensor([0.625, 0.375, 0.0]))
    torch.testing.assert_close(routed.sum(), torch.tensor(1.0))
    teacher.configure({"top": 1})
    torch.testing.assert_close(teacher.route(likelihoods)[0, 0], torch.tensor(1.0))


@torch.no_grad()
def test_likelihoods_are_peaked_at_clips_scale(teacher: UIRLoRA) -> None:
    words = torch.eye(10, 32)
    teacher.clip.logit_scale.fill_(10.0)  # beyond the bound of 100
    logits = teacher.clip.similarity(words, words)
    assert logits.max() == pytest.approx(100.0, rel=1e-3)
    assert logits.softmax(dim=1).diagonal().min() > 0.9


@torch.no_grad()
def test_blur_is_judged_without_resizing(teacher: UIRLoRA) -> None:
    image = picture(96, 96)
    changed = image.clone()
    changed[..., :8, :] = 0  # outside the crop, inside the resized picture
    before, after = teacher.similarities(image), teacher.similarities(changed)
    blur = DEGRADATIONS.index("blurry")
    torch.testing.assert_close(after[:, blur], before[:, blur])
    others = [i for i in range(len(DEGRADATIONS)) if i != blur]
    assert (after[:, others] != before[:, others]).all()
    crop = teacher.clip.image_embedding(image, resize=False)
    torch.testing.assert_close(crop, teacher.clip.image_embedding(image[..., 32:64, 32:64]), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_given_weights_take_the_routers_place(teacher: UIRLoRA) -> None:
    image = picture(16, 16)
    teacher.configure({"weights": {"rainy": 0.7, "snowy": 0.6}})
    expected = teacher.one_step(image, weights(rainy=0.7, snowy=0.6).repeat(2, 1))[0].clamp(0, 1)
    torch.testing.assert_close(teacher.restore(image, 1)[0].picture, expected)
    teacher.configure({"weights": {}})
    assert not torch.equal(teacher.restore(image, 1)[0].picture, expected)
    with pytest.raises(InputError, match=r"'foggy'.*blurry, hazy"):
        teacher.configure({"weights": {"foggy": 1.0}})


def test_rounds_estimate_the_leaves(teacher: UIRLoRA) -> None:
    steps = teacher.restore(picture(17, 23), 2)
    for step in steps:
        assert step.picture.shape == (2, 3, 17, 23)
        assert step.degradation is not None
        assert step.features is not None
        assert step.degradation.shape == (2, len(LEAVES))
        assert ((step.degradation >= 0) & (step.degradation <= 1)).all()
        assert step.features.shape[1] == teacher.feature_width
    assert {LEAF_OF[WORD_OF[leaf]] for leaf in LEAVES} == set(LEAVES)


@torch.no_grad()
def test_a_file_without_a_degradation_is_the_whole_model(teacher: UIRLoRA, tmp_path: Path) -> None:
    image = picture(16, 16)
    torch.save(layout(teacher, "rainy"), tmp_path / "model.pkl")
    expected = teacher.one_step(image, weights(rainy=1).repeat(2, 1))[0]
    fresh = build("tiny").eval()
    for name, value in teacher.state_dict().items():  # the same base, other adapters
        if "lora_" not in name:
            fresh.state_dict()[name].copy_(value)
    fresh.load_published(torch.load(tmp_path / "model.pkl", weights_only=True))
    torch.testing.assert_close(fresh.one_step(image, weights(hazy=0.5, noisy=0.5).repeat(2, 1))[0], expected)


def test_files_by_degradation_fill_their_own_adapters(teacher: UIRLoRA) -> None:
    fresh = build("tiny")
    fresh.load_published({"rainy": layout(teacher, "hazy")})
    key = "encoder.conv_in.lora_B.{}.weight"
    torch.testing.assert_close(
        fresh.vae.state_dict()[key.format("rainy")], teacher.vae.state_dict()[key.format("hazy")]
    )
    assert not fresh.vae.state_dict()[key.format("hazy")].any()


def test_a_wrong_file_is_refused(teacher: UIRLoRA) -> None:
    with pytest.raises(InputError, match=r"looks like Restormer, first key encoder_level1.*rank_unet"):
        teacher.load_published({"params": {"encoder_level1.x": torch.zeros(1)}})
    damaged = layout(teacher, "rainy")
    del damaged["state_dict_vae"]["decoder.skip_conv_1.base_layer.weight"]
    with pytest.raises(InputError, match=r"1 keys missing, first decoder\.skip_conv_1\.base_layer\.weight"):
        teacher.load_published(damaged)


def test_a_folder_without_sd_turbo_names_what_is_missing(teacher: UIRLoRA, tmp_path: Path) -> None:
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae/config.json").write_text("{}")
    with pytest.raises(InputError) as caught:
        teacher.load_base(tmp_path)
    assert "vae/config.json" not in str(caught.value)
    assert all(name in str(caught.value) for name in SD_TURBO_FILES[1:])


def test_the_base_and_the_router_are_taken_from_a_folder(tmp_path: Path) -> None:
    """A folder laid out as sd-turbo's, in miniature; the text is embedded once and kept."""
    torch.manual_seed(0)
    config = CONFIGS["tiny"]
    vae, unet = AutoencoderKL(**config.vae), UNet2DConditionModel(**config.unet)
    text = CLIPTextConfig(
        vocab_size=3,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=4,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    vae.save_pretrained(tmp_path / "vae")
    unet.save_pretrained(tmp_path / "unet")
    CLIPTextModel(text).save_pretrained(tmp_path / "text_encoder")
    schedule = DDPMScheduler(beta_start=config.betas[0], beta_end=config.betas[1], beta_schedule="scaled_linear")
    schedule.save_pretrained(tmp_path / "scheduler")
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer/vocab.json").write_text('{"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2}')
    (tmp_path / "tokenizer/merges.txt").write_text("#version: 0.2\n")
    (tmp_path / "tokenizer/tokenizer_config.json").write_text('{"model_max_length": 4}')

    router = DegradationCLIP("tiny")
    fresh = UIRLoRA(
        Base(AutoencoderKL(**config.vae), UNet2DConditionModel(**config.unet), schedule, torch.zeros(1, 4, 16)),
        DegradationCLIP("tiny"),
    )
    with pytest.warns(UserWarning, match="router is untrained"):
        fresh.load_base(tmp_path)
    content = {f"module.{name}": value for name, value in router.state_dict().items()}
    torch.save({"state_dict": content | {"module.visual.proj": torch.zeros(1)}}, tmp_path / ROUTER_FILE)
    fresh.load_base(tmp_path)
    conv = fresh.unet.conv_in.weight
    torch.testing.assert_close(conv, unet.conv_in.weight)
    torch.testing.assert_close(fresh.vae.encoder.conv_in.get_base_layer().weight, vae.encoder.conv_in.weight)
    assert float(fresh.prompt.abs().sum()) > 0
    torch.testing.assert_close(fresh.clip.visual_control.proj, router.visual_control.proj)
    assert fresh.eval().restore(picture(16, 16), 1)[0].picture.shape == (2, 3, 16, 16)


def test_a_checkpoint_without_its_base_is_refused(teacher: UIRLoRA, tmp_path: Path) -> None:
    torch.save(layout(teacher, "rainy"), tmp_path / "model.pkl")
    with pytest.raises(InputError, match="the folder of sd-turbo with --base"):
        load_teacher(tmp_path / "model.pkl", "uir-lora")


def test_the_published_model_has_sd_turbos_shape() -> None:
    with torch.device("meta"):
        teacher = build("published")
    decoder, own = teacher.vae.decoder, {n for n, p in teacher.named_parameters() if p.requires_grad}
    skips = [getattr(decoder, f"skip_conv_{i}").get_base_layer().weight.shape[:2] for i in (1, 2, 3, 4)]
    assert skips == [(512, 512), (512, 256), (512, 128), (256, 128)]
    base = {
        part: sum(p.numel() for n, p in network.named_parameters() if "lora_" not in n and "skip_conv_" not in n)
        for part, network in (("vae", teacher.vae), ("unet", teacher.unet))
    }
    assert base == {"vae": 83_653_863, "unet": 865_910_724}
    assert teacher.unet.conv_in.weight.shape == (320, 4, 3, 3)  # no target: files hold it whole
    assert teacher.unet.mid_block.resnets[0].conv1.lora_A["rainy"].weight.shape == (8, 1280, 3, 3)
    assert decoder.conv_out.lora_A["rainy"].weight.shape == (4, 128, 3, 3)
    assert all("lora_" in n or "skip_conv_" in n for n in own if n.startswith(("vae.", "unet.")))
    assert float(build("tiny").signal) > 0.5
    assert teacher.multiple == 8
    assert teacher.clip.width == 512
