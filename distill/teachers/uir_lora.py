"""UIR-LoRA: one-step sd-turbo with a LoRA a degradation, mixed by what CLIP sees.

Zhang et al., "UIR-LoRA: Achieving Universal Image Restoration through Multiple Low-Rank Adaptation", 2024. A layer's
output is f(x) + Σ sᵢ fᵢ(x): the adapters stay beside the frozen model, never merged, and the weights sᵢ come from the
similarity of the picture's degradation embedding with ten words, or from the caller. The one-step model is
img2img-turbo's (Parmar et al. 2024): timestep 999, VAE activations passed on to the decoder by 1×1 convolutions.

What differs: the encoder's mean is used where img2img-turbo samples, so that a picture has one result; training
(`UIRLoRAObjective`) does in one stage what the paper does in two.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from pydantic import Field, field_validator
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from ...runtime.errors import InputError
from ...runtime.tree import LEAVES
from ..data import Batch
from ..recipe import Frozen
from ..training import Objective
from .checkpoints import architecture_of, fill, strip_prefix, unwrap
from .degradation_clip import DegradationCLIP
from .protocol import Round, Size, Teacher, Trajectory

# The words of the router, and the leaf of our degradation tree each belongs to.
LEAF_OF: dict[str, str | None] = {
    "blurry": "blur",
    "hazy": "haze",
    "jpeg": "jpeg",
    "low-light": "low_light",
    "noisy": "noise",
    "raindrop": "rain",
    "rainy": "rain",
    "shadowed": "low_light",
    "snowy": "snow",
    "inpainting": None,
}
DEGRADATIONS: tuple[str, ...] = tuple(LEAF_OF)
# The word whose adapter learns a leaf of our synthetic degradations.
WORD_OF = {
    "blur": "blurry",
    "haze": "hazy",
    "jpeg": "jpeg",
    "low_light": "low-light",
    "noise": "noisy",
    "rain": "rainy",
    "snow": "snowy",
}

SKIPS = ("skip_conv_1", "skip_conv_2", "skip_conv_3", "skip_conv_4")
ATTENTION = ("to_k", "to_q", "to_v", "to_out.0")
VAE_TARGETS = ("conv1", "conv2", "conv_in", "conv_shortcut", "conv", "conv_out", *SKIPS, *ATTENTION)
UNET_TARGETS = (
    *ATTENTION,
    *("conv", "conv1", "conv2", "conv_shortcut", "conv_out"),
    *("proj_in", "proj_out", "ff.net.2", "ff.net.0.proj"),
)
VAE_RANK, UNET_RANK = 4, 8
TIMESTEP = 999

# The layout of img2img-turbo's files, and the adapter's name in them.
LAYOUT = frozenset(
    {
        *("rank_unet", "rank_vae", "unet_lora_target_modules", "vae_lora_target_modules"),
        *("state_dict_unet", "state_dict_vae"),
    }
)
ADAPTER_KEY = re.compile(r"\.lora_([AB])\.(?:default|vae_skip)\.")
ROUTER_SHARE = 0.1  # of the router's loss beside the pixels

# What `from_folder` reads of sd-turbo's repository.
SD_TURBO_FILES = (
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
)
ROUTER_FILE = "daclip_ViT-B-32.pt"


class Config(Frozen):
    """Arguments of diffusers' parts."""

    vae: dict[str, Any]
    unet: dict[str, Any]
    betas: tuple[float, float] = Field(description="first and last β of the scaled-linear noise schedule")
    tokens: int = Field(description="tokens of the text that conditions the UNet")


CONFIGS: dict[str, Config] = {
    # sd-turbo: Stable Diffusion 2.1's VAE and UNet.
    "published": Config(
        vae={
            "block_out_channels": (128, 256, 512, 512),
            "down_block_types": ("DownEncoderBlock2D",) * 4,
            "up_block_types": ("UpDecoderBlock2D",) * 4,
            "layers_per_block": 2,
            "latent_channels": 4,
            "sample_size": 768,
        },
        unet={
            "sample_size": 64,
            "block_out_channels": (320, 640, 1280, 1280),
            "attention_head_dim": (5, 10, 20, 20),
            "cross_attention_dim": 1024,
            "use_linear_projection": True,
        },
        betas=(0.00085, 0.012),
        tokens=77,
    ),
    # No pretrained base to stand on: the VAE is made to reconstruct, and a mild schedule keeps x₀ near the latent.
    "tiny": Config(
        vae={
            "block_out_channels": (16, 16),
            "down_block_types": ("DownEncoderBlock2D",) * 2,
            "up_block_types": ("UpDecoderBlock2D",) * 2,
            "layers_per_block": 1,
            "latent_channels": 4,
            "norm_num_groups": 1,
            "mid_block_add_attention": False,
        },
        unet={
            "sample_size": 8,
            "block_out_channels": (16,),
            "down_block_types": ("DownBlock2D",),
            "up_block_types": ("UpBlock2D",),
            "layers_per_block": 1,
            "attention_head_dim": 2,
            "cross_attention_dim": 16,
            "norm_num_groups": 8,
            "use_linear_projection": True,
        },
        betas=(1e-5, 1e-3),
        tokens=1,
    ),
}


class Settings(Frozen):
    """How adapters are chosen."""

    top: int = Field(
        default=2, ge=1, le=10, description="adapters at most; 1 suffices for one degradation, 2 for mixtures"
    )
    weights: dict[str, float] = Field(default={}, description="degradation → weight, instead of the router's")

    @field_validator("weights")
    @classmethod
    def _known(cls, weights: dict[str, float]) -> dict[str, float]:
        for name in weights:
            if name not in DEGRADATIONS:
                raise ValueError(f"unknown degradation {name!r}, expected some of {', '.join(DEGRADATIONS)}")
        return weights


class Base(NamedTuple):
    """A one-step diffusion model: its networks, its noise schedule and the text (1, tokens, width) it is told."""

    vae: AutoencoderKL
    unet: UNet2DConditionModel
    schedule: DDPMScheduler
    prompt: Tensor


class UIRLoRA(Teacher):
    """The one-step model, ten adapters on its VAE and UNet, and the router that weighs them."""

    prompt: Tensor
    signal: Tensor  # ᾱ at the one timestep

    def __init__(self, base: Base, clip: DegradationCLIP):
        super().__init__()
        self.vae: Any = base.vae
        self.unet: Any = base.unet
        self.clip = clip
        self.settings = Settings()
        self.register_buffer("prompt", base.prompt)
        self.register_buffer("signal", base.schedule.alphas_cumprod[TIMESTEP].clone())
        widths: tuple[int, ...] = tuple(self.vae.config.block_out_channels)
        self.multiple = 2 ** (len(widths) - 1)
        self.feature_width = widths[-1]
        _add_skips(self.vae.decoder, widths)
        _add_adapters(self.vae, VAE_RANK, VAE_TARGETS)
        _add_adapters(self.unet, UNET_RANK, UNET_TARGETS)
        for network in (self.vae, self.unet):
            for name, parameter in network.named_parameters():
                parameter.requires_grad_("lora_" in name or "skip_conv_" in name)
        self._layers = [part for part in self.modules() if isinstance(part, LoraLayer)]

    def load_base(self, folder: Path) -> None:
        """sd-turbo's weights from a local folder (diffusers layout), and DA-CLIP's for the router where they lie beside.

        Raises InputError that names the files the folder lacks.
        """
        missing = [name for name in SD_TURBO_FILES if not (folder / name).is_file()]
        if missing:
            raise InputError(
                f"{folder} is not sd-turbo: {', '.join(missing)} missing; "
                "expected a folder with what stabilityai/sd-turbo on the Hugging Face hub holds"
            )
        tokenizer: Any = CLIPTokenizer.from_pretrained(folder / "tokenizer")
        text_encoder: Any = CLIPTextModel.from_pretrained(folder / "text_encoder")
        schedule: Any = DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
        tokens = tokenizer("", padding="max_length", max_length=tokenizer.model_max_length, return_tensors="pt")
        with torch.no_grad():
            prompt = text_encoder(tokens.input_ids)[0]
        base = Base(
            vae=AutoencoderKL.from_pretrained(folder, subfolder="vae"),
            unet=UNet2DConditionModel.from_pretrained(folder, subfolder="unet"),
            schedule=schedule,
            prompt=prompt,
        )
        self.load_state_dict(UIRLoRA(base, self.clip).state_dict(), assign=True)
        router = folder / ROUTER_FILE
        if not router.is_file():
            warnings.warn(
                f"no {ROUTER_FILE} (DA-CLIP) in {folder}: the router is untrained, set `weights`", stacklevel=2
            )
            return
        tensors = unwrap(torch.load(router, map_location="cpu", weights_only=True))
        tensors = strip_prefix(tensors, "module.") or tensors
        # Without the second copy of the frozen image tower.
        fill(self.clip, {n: t for n, t in tensors.items() if not n.startswith("visual.")}, str(router))

    @property
    def top(self) -> int:
        """How many adapters are active at most."""
        return cast(Settings, self.settings).top

    def likelihoods(self, image: Tensor) -> Tensor:
        """How likely (B, 3, H, W) in [0, 1] suffers from each of `DEGRADATIONS`: (B, 10), sums to 1."""
        return self.similarities(image).softmax(dim=1)

    def similarities(self, image: Tensor) -> Tensor:
        """Logits (B, 10) over `DEGRADATIONS`: of the scaled picture, but blur's of a crop at its own resolution."""
        words = self.clip.text_embedding(DEGRADATIONS)
        whole = self.clip.similarity(self.clip.image_embedding(image), words)
        crop = self.clip.similarity(self.clip.image_embedding(image, resize=False), words)
        # Scaling a picture down sharpens it: whether it is blurred is judged without.
        is_blur = torch.tensor([name == "blurry" for name in DEGRADATIONS], device=image.device)
        return torch.where(is_blur, crop, whole)

    def route(self, likelihoods: Tensor) -> Tensor:
        """Adapter weights (B, 10): the `top` largest likelihoods, renormalised to sum 1."""
        values, indices = likelihoods.topk(self.top, dim=1)
        return torch.zeros_like(likelihoods).scatter(1, indices, values / values.sum(dim=1, keepdim=True))

    def rounds(self, image: Tensor, count: int) -> Trajectory:
        """Round 1 is the published method; each later one restores its predecessor's output in the same way."""
        trajectory: Trajectory = []
        given = cast(Settings, self.settings).weights
        for _ in range(count):
            likelihoods = self.likelihoods(image)
            weights = self.route(likelihoods)
            if given:
                weights = weights.new_tensor([given.get(name, 0.0) for name in DEGRADATIONS]).expand_as(weights)
            picture, features = self.one_step(image, weights)
            image = picture.clamp(0, 1)
            trajectory.append(Round(image, None, _leaves(likelihoods), features))
        return trajectory

    def one_step(self, image: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Restore (B, 3, H, W) in [0, 1] with adapter weights (B, 10): the picture, not clamped, and features.

        Features are the decoder's innermost ones, (B, `feature_width`, H / `multiple`, W / `multiple`).
        """
        picture = torch.empty_like(image)
        features: Tensor | None = None
        # Pictures with the same active adapters go together: none is computed for a picture that does not use it.
        for active in torch.unique(weights != 0, dim=0):
            rows = ((weights != 0) == active).all(dim=1).nonzero().flatten()
            names = [name for name, used in zip(DEGRADATIONS, active.tolist(), strict=True) if used]
            with self.mixed(names, weights[rows]):
                latent, activations = self.encode(image[rows])
                part, inner = self.decode(self.denoise(latent), activations)
            if features is None:
                features = inner.new_empty(len(image), *inner.shape[1:])
            picture = picture.to(part.dtype).index_copy(0, rows, part)
            features = features.index_copy(0, rows, inner)
        assert features is not None
        return picture, features

    @contextmanager
    def mixed(self, active: list[str], weights: Tensor) -> Generator[None]:
        """Within, every adapted layer adds its `active` adapters' outputs times their weights (B, 10), a row a picture."""
        for layer in self._layers:
            layer._active_adapter = active  # `set_adapter` would also freeze the others, and takes long
            # Pictures of a batch differ in weights, so a scale is a tensor over the batch: before maps and before tokens.
            dimensions = 4 if isinstance(layer.get_base_layer(), nn.Conv2d) else 3
            for name in active:
                scale: Any = weights[:, DEGRADATIONS.index(name)].view(-1, *[1] * (dimensions - 1))
                layer.set_scale(name, scale)
        try:
            yield
        finally:
            for layer in self._layers:
                for name in active:
                    layer.set_scale(name, 1.0)

    def encode(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, 3, H, W) in [0, 1] → the scaled latent, and what enters each block of the encoder."""
        encoder = self.vae.encoder
        hidden = encoder.conv_in(image * 2 - 1)
        activations: list[Tensor] = []
        for block in encoder.down_blocks:
            activations.append(hidden)
            hidden = block(hidden)
        hidden = encoder.conv_act(encoder.conv_norm_out(encoder.mid_block(hidden)))
        mean, _ = self.vae.quant_conv(encoder.conv_out(hidden)).chunk(2, dim=1)
        return mean * self.vae.config.scaling_factor, activations

    def denoise(self, latent: Tensor) -> Tensor:
        """One step from timestep 999 to a clean latent: x₀ = (x − √(1 − ᾱ) ε) / √ᾱ."""
        prompt = self.prompt.expand(len(latent), -1, -1)
        noise = self.unet(latent, TIMESTEP, encoder_hidden_states=prompt).sample
        return (latent - (1 - self.signal).sqrt() * noise) / self.signal.sqrt()

    def decode(self, latent: Tensor, activations: list[Tensor]) -> tuple[Tensor, Tensor]:
        """A latent and the encoder's activations → picture (B, 3, H, W), about [0, 1], and the innermost features."""
        decoder = self.vae.decoder
        features = decoder.mid_block(decoder.conv_in(self.vae.post_quant_conv(latent / self.vae.config.scaling_factor)))
        hidden = features
        skips = [getattr(decoder, name) for name in SKIPS[: len(decoder.up_blocks)]]
        for block, skip, activation in zip(decoder.up_blocks, skips, reversed(activations), strict=True):
            hidden = block(hidden + skip(activation))
        picture = decoder.conv_out(decoder.conv_act(decoder.conv_norm_out(hidden)))
        return picture / 2 + 0.5, features

    def passes(self, image: Tensor) -> dict[str, Callable[[], Any]]:
        """Encoder, UNet and decoder with `top` adapters active, and the router."""
        weights = torch.zeros(len(image), len(DEGRADATIONS), device=image.device)
        weights[:, : self.top] = 1 / self.top
        with torch.no_grad():
            latent, activations = self.encode(image)
            self.clip.text_embedding(DEGRADATIONS)  # a constant

        def counted(part: Callable[..., Any], *inputs: Any) -> Any:
            with self.mixed(list(DEGRADATIONS[: self.top]), weights):
                return part(*inputs)

        return {
            "encode": lambda: counted(self.encode, image),
            "unet": lambda: counted(self.denoise, latent),
            "decode": lambda: counted(self.decode, latent, activations),
            "router": lambda: self.likelihoods(image),
        }

    def objective(self) -> UIRLoRAObjective:
        """See `UIRLoRAObjective`."""
        return UIRLoRAObjective(self)

    def load_published(self, content: Mapping[str, Any]) -> None:
        """Take over adapters in img2img-turbo's `.pkl` layout.

        `content` is one such file, or several by degradation. One file that names no degradation goes into all ten
        adapters: weights that sum to 1 then give exactly its model, whatever the router says.
        Skips and the UNet's first convolution, which these files hold too, are shared. Raises InputError.
        """
        files = dict.fromkeys(DEGRADATIONS, content) if "state_dict_unet" in content else content
        for degradation, file in files.items():
            if not isinstance(file, Mapping) or not LAYOUT.issubset(file):
                found = unwrap(content) or content
                raise InputError(
                    f"not a UIR-LoRA checkpoint (it looks like {architecture_of(found)}, first key "
                    f"{next(iter(found), 'none')}): expected {', '.join(sorted(LAYOUT))}, or these by degradation"
                )
            if degradation not in DEGRADATIONS:
                raise InputError(f"unknown degradation {degradation!r}; expected some of {', '.join(DEGRADATIONS)}")
            self.load_adapter(degradation, file)

    def load_adapter(self, degradation: str, file: Mapping[str, Any]) -> None:
        """Fill one degradation's adapters, the skips and the UNet's first convolution. Raises InputError."""
        for network, part in ((self.vae, "vae"), (self.unet, "unet")):
            tensors = {
                ADAPTER_KEY.sub(rf".lora_\1.{degradation}.", name): value
                for name, value in file[f"state_dict_{part}"].items()
            }
            others = {
                name: value for name, value in network.state_dict().items() if not _in_file(name, part, degradation)
            }
            fill(network, others | tensors, f"state_dict_{part} for {degradation!r}")


class UIRLoRAObjective(Objective[UIRLoRA]):
    """Adapters, skips and router in one stage.

    Every sample is restored with the adapters of the degradations it has, weighed alike, and none when it is clean:
    L1. The router learns beside it: cross-entropy of the ten similarities, of the scaled and the cropped picture,
    against the same weights. The paper trains the skips on mixed data first, then each adapter alone on its own data
    (AdamW 2e-4, cosine, 80k steps, batch 8), and takes DA-CLIP trained as router. Raindrops, shadows and holes are
    none of our synthetic degradations: their adapters stay as they are.
    """

    def __init__(self, model: UIRLoRA):
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        model = self.model
        present = (batch.severities > 0).to(batch.degraded)
        columns = [DEGRADATIONS.index(WORD_OF[leaf]) for leaf in LEAVES]
        weights = present.new_zeros(len(present), len(DEGRADATIONS))
        weights[:, columns] = present / present.sum(dim=1, keepdim=True).clamp(min=1)
        picture, _ = model.one_step(batch.degraded, weights)
        pixel = F.l1_loss(picture, batch.clean)
        words = model.clip.text_embedding(DEGRADATIONS)
        router = torch.zeros_like(pixel)
        for resize in (True, False):
            embedding = model.clip.image_embedding(batch.degraded, resize=resize)
            logits = model.clip.similarity(embedding, words)
            router = router - (weights * logits.log_softmax(dim=1)).sum(dim=1).mean() / 2
        return {"loss": pixel + ROUTER_SHARE * router, "pixel": pixel, "router": router}


def build(size: Size) -> UIRLoRA:
    """`uir-lora` with fresh weights."""
    config = CONFIGS[size]
    base = Base(
        vae=AutoencoderKL(**config.vae),
        unet=UNet2DConditionModel(**config.unet),
        schedule=DDPMScheduler(beta_start=config.betas[0], beta_end=config.betas[1], beta_schedule="scaled_linear"),
        prompt=torch.zeros(1, config.tokens, config.unet["cross_attention_dim"]),
    )
    teacher = UIRLoRA(base, DegradationCLIP(size))
    if size == "tiny":
        _reconstruct(teacher)
    return teacher


def _reconstruct(teacher: UIRLoRA) -> None:
    """Make a fresh VAE reconstruct, in place of pretraining.

    Its residual branches start at zero and the picture takes the outermost skip. Groups of the last normalisation would
    lose its brightness and contrast, were there not constant channels far larger than the picture; and an offset keeps
    the activation nearly linear. What is left to undo is fitted: the last convolution, by least squares on noise.
    """
    vae, decoder = teacher.vae, teacher.vae.decoder
    entry = vae.encoder.conv_in.get_base_layer()
    outermost = getattr(decoder, SKIPS[len(decoder.up_blocks) - 1]).get_base_layer()
    last = decoder.conv_out.get_base_layer()
    with torch.no_grad():
        for name, layer in vae.named_modules():
            if isinstance(layer, LoraLayer) and name.endswith(("conv2", "upsamplers.0.conv")):
                for parameter in layer.get_base_layer().parameters():
                    parameter.zero_()
        nn.init.dirac_(entry.weight)
        nn.init.dirac_(outermost.weight)
        entry.bias.zero_()
        entry.bias[3:] = 4 * torch.linspace(-1, 1, len(entry.bias) - 3)
        decoder.conv_norm_out.bias.fill_(3.0)
        brightness = torch.linspace(0.1, 1, 64).view(-1, 1, 1, 1)
        noise = torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * brightness
        activations = teacher.encode(noise)[1]
        hidden = decoder.conv_act(decoder.conv_norm_out(outermost(activations[0])))
        known = hidden.movedim(1, -1).flatten(0, -2).double()
        known = torch.cat([known, torch.ones_like(known[:, :1])], dim=1)
        wanted = (noise * 2 - 1).movedim(1, -1).flatten(0, -2).double()
        # The constant channels nearly repeat each other: the smallest of all solutions, lest training be unstable.
        solution = torch.linalg.lstsq(known, wanted, rcond=1e-4, driver="gelsd").solution.float()
        last.weight.zero_()
        last.weight[:, :, 1, 1] = solution[:-1].T
        last.bias.copy_(solution[-1])


def _add_skips(decoder: nn.Module, widths: tuple[int, ...]) -> None:
    """One 1×1 convolution from what enters each encoder block to what enters the decoder block of its size."""
    entering_encoder = (widths[0], *widths[:-1])
    entering_decoder = (widths[-1], *reversed(widths[1:]))
    for name, source, target in zip(SKIPS, reversed(entering_encoder), entering_decoder, strict=False):
        skip = nn.Conv2d(source, target, 1, bias=False)
        nn.init.constant_(skip.weight, 1e-5)
        decoder.add_module(name, skip)


def _add_adapters(network: nn.Module, rank: int, targets: tuple[str, ...]) -> None:
    """One adapter a degradation on every target; all else is frozen."""
    config = LoraConfig(r=rank, init_lora_weights="gaussian", target_modules=list(targets))
    for name in DEGRADATIONS:
        with warnings.catch_warnings():  # peft doubts that several adapters are meant
            warnings.simplefilter("ignore", UserWarning)
            inject_adapter_in_model(config, network, name)


def _in_file(name: str, part: str, degradation: str) -> bool:
    """Whether a file with this degradation's adapter holds the parameter `name` of the VAE or UNet."""
    if ".lora_" in name:
        return f".{degradation}." in name
    return "skip_conv_" in name if part == "vae" else name.startswith("conv_in.")


def _leaves(likelihoods: Tensor) -> Tensor:
    """Likelihoods (B, 10) of the words → (B, leaves of the degradation tree), summed by leaf."""
    belongs = torch.tensor([[float(LEAF_OF[word] == leaf) for leaf in LEAVES] for word in DEGRADATIONS])
    return (likelihoods @ belongs.to(likelihoods)).clamp(0, 1)
