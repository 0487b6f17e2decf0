"""RAR: Restore, Assess, Repeat. A flow-matching restorer in the latent space of SD3.5, told by an assessor what is wrong.

A round: identify → condition → four Euler steps from the degraded latent, without noise → compare with what there was
before. The loop ends when the older one is preferred, and keeps it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from diffusers.loaders.single_file_utils import convert_sd3_transformer_checkpoint_to_diffusers
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from pydantic import Field
from safetensors.torch import load_file
from torch import Tensor

from ...runtime.errors import InputError
from ..data import Batch
from ..metrics import psnr, quality_of
from ..recipe import Frozen
from ..training import Objective
from .assessor import Assessment, AssessorConfig, CompactAssessor
from .checkpoints import architecture_of, fill, strip_prefix, unwrap
from .protocol import Round, Size, Teacher, Trajectory

TIMESTEPS = 1000  # the transformer's time runs from 0 (restored) to this (degraded)


class RARConfig(Frozen):
    """A latent space, a restorer and an assessor; defaults are the published method's."""

    side: int = Field(default=256, description="pictures are restored at side × side and scaled back")
    autoencoder: dict[str, Any] = Field(description="diffusers' AutoencoderKL, with shift_factor and scaling_factor")
    transformer: dict[str, Any] = Field(description="diffusers' SD3Transformer2DModel")
    assessor: AssessorConfig
    steps: int = Field(default=4, description="Euler steps a round")
    shift: float = Field(default=3.0, description="how far time is pushed towards the degraded end")
    round_weights: tuple[float, ...] = Field(default=(0.2, 0.4, 0.6, 1.0), description="loss weights of trained rounds")
    residual: bool = Field(
        default=False,
        description="add the change between two decoded latents to the picture: scaling and decoding lose nothing",
    )


PUBLISHED = RARConfig(
    autoencoder={
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
        "latent_channels": 16,
        "shift_factor": 0.0609,
        "scaling_factor": 1.5305,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    },
    transformer={
        "sample_size": 128,
        "in_channels": 16,
        "out_channels": 16,
        "num_layers": 24,
        "num_attention_heads": 24,
        "attention_head_dim": 64,
        "caption_projection_dim": 1536,
        "joint_attention_dim": 4096,
        "pooled_projection_dim": 2048,
        "pos_embed_max_size": 384,
        "dual_attention_layers": tuple(range(13)),
        "qk_norm": "rms_norm",
    },
    assessor=AssessorConfig(
        channels=16,
        grid=32,
        patch=2,
        width=384,
        heads=6,
        layers=6,
        token_layers=2,
        tokens=154,
        context_width=4096,
        pooled_width=2048,
    ),
)

# Its latent space is pixels (`pass_through`): frozen like the published one, and nothing has to be learned before the flow.
TINY = RARConfig(
    side=64,
    autoencoder={
        "block_out_channels": (8,),
        "latent_channels": 3,
        "norm_num_groups": 1,
        "shift_factor": 0.0,
        "scaling_factor": 1.0,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "mid_block_add_attention": False,
    },
    transformer={
        "sample_size": 64,
        "patch_size": 4,
        "in_channels": 3,
        "out_channels": 3,
        "num_layers": 1,
        "num_attention_heads": 2,
        "attention_head_dim": 32,
        "caption_projection_dim": 64,
        "joint_attention_dim": 32,
        "pooled_projection_dim": 32,
        "pos_embed_max_size": 16,
        "qk_norm": "rms_norm",
    },
    assessor=AssessorConfig(
        channels=3,
        grid=64,
        patch=8,
        width=32,
        heads=2,
        layers=1,
        token_layers=1,
        tokens=4,
        context_width=32,
        pooled_width=32,
    ),
    residual=True,
)


class RAR(Teacher):
    """Autoencoder, flow-matching transformer and assessor. `multiple` is 1: pictures are resized, not padded."""

    multiple = 1

    def __init__(self, config: RARConfig) -> None:
        super().__init__()
        self.config = config
        self.feature_width = config.transformer["in_channels"]
        self.autoencoder: Any = AutoencoderKL(**config.autoencoder).requires_grad_(False)
        self.transformer: Any = SD3Transformer2DModel(**config.transformer)
        # DiT's start: no velocity, so an untrained restorer changes nothing.
        torch.nn.init.zeros_(self.transformer.proj_out.weight)
        torch.nn.init.zeros_(self.transformer.proj_out.bias)
        self.assessor = CompactAssessor(config.assessor)

    def to_side(self, image: Tensor) -> Tensor:
        """Resize (B, 3, H, W) to the square that pictures are restored at."""
        return _resize(image, self.config.side, self.config.side)

    def encode(self, image: Tensor) -> Tensor:
        """Scaled latent (B, C, h, w) of a square picture in [0, 1]: the posterior's mean, so that runs repeat."""
        mean = self.autoencoder.encode(2 * image - 1).latent_dist.mode().float()
        return (mean - self.autoencoder.config.shift_factor) * self.autoencoder.config.scaling_factor

    def decode(self, latent: Tensor) -> Tensor:
        """Square picture, in [0, 1] but for overshoot, of a scaled latent."""
        latent = latent / self.autoencoder.config.scaling_factor + self.autoencoder.config.shift_factor
        return (self.autoencoder.decode(latent).sample.float() + 1) / 2

    def render(self, decoded: Tensor, start: Tensor, image: Tensor) -> Tensor:
        """The picture (B, 3, H, W) that a decoded latent stands for.

        `start`: the decoded latent of the degraded `image`; only a residual configuration looks at it.
        """
        height, width = image.shape[-2:]
        if self.config.residual:
            return image + _resize(decoded - start, height, width)
        return _resize(decoded, height, width)

    def velocity(self, latent: Tensor, time: Tensor, assessment: Assessment) -> Tensor:
        """v = z_degraded − z_restored, predicted at a latent between the two; `time`: (B,) in [0, 1], 1 is degraded."""
        told = assessment.tokens, assessment.pooled
        return self.transformer(latent, *told, time * TIMESTEPS, return_dict=False)[0].float()

    def sample(self, degraded: Tensor, velocity: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Euler from the degraded latent, without noise or guidance, along `velocity(latent, time)`."""
        scheduler: Any = FlowMatchEulerDiscreteScheduler(TIMESTEPS, self.config.shift)
        scheduler.set_timesteps(self.config.steps)
        scheduler.set_begin_index(0)
        latent = degraded
        for timestep in scheduler.timesteps:
            time = (timestep / TIMESTEPS).to(latent).expand(len(latent))
            latent = scheduler.step(velocity(latent, time), timestep, latent).prev_sample
        return latent

    def rounds(self, image: Tensor, count: int) -> Trajectory:
        """`count` rounds on (B, 3, H, W) in [0, 1] of any size; pictures that stopped stay as they are."""
        original = self.encode(self.to_side(image))
        begun = self.decode(original) if self.config.residual else original
        kept, picture = original, image
        active = torch.ones(len(image), dtype=torch.bool, device=image.device)
        trajectory: Trajectory = []
        for _ in range(count):
            if trajectory and not active.any():
                trajectory.append(trajectory[-1])
                continue
            start, assessment = kept, self.assessor.identify(kept)
            new = self.sample(kept, lambda latent, time, told=assessment: self.velocity(latent, time, told))
            active = active & (self.assessor.compare(new, kept, original) > 0)
            accepted = active[:, None, None, None]
            kept = torch.where(accepted, new, kept)
            picture = torch.where(accepted, self.render(self.decode(kept), begun, image), picture)
            quality = self.assessor.quality(kept, original)
            trajectory.append(Round(picture, quality, assessment.degradation.sigmoid(), start))
        return trajectory

    def passes(self, image: Tensor) -> dict[str, Callable[[], Any]]:
        """A round of four transformer steps and its parts."""
        square = self.to_side(image)
        latent = self.encode(square)
        assessment = self.assessor.identify(latent)
        time = torch.ones(len(image), device=image.device)
        return {
            "encode": lambda: self.encode(square),
            "assess": lambda: self.assessor.identify(latent),
            "transformer step": lambda: self.velocity(latent, time, assessment),
            "compare": lambda: self.assessor.compare(latent, latent, latent),
            "decode": lambda: self.decode(latent),
            "round": lambda: self.rounds(image, 1),
        }

    def objective(self) -> RecurrentObjective:
        """Flow matching over recurrent rounds, and the assessor's own losses."""
        return RecurrentObjective(self)

    def load_published(self, content: Mapping[str, Any]) -> None:
        """Take over the restorer (`model.`) of the authors' checkpoint, in diffusers' or Stability AI's layout.

        The file's position table is dropped (it is a constant). The language-model assessor (`connector.`,
        `assessment.`) is not built here and not loaded, which a warning says. Raises InputError.
        """
        everything = unwrap(content)
        tensors = strip_prefix(everything, "model.")
        if not tensors:
            looks, first = architecture_of(everything), next(iter(everything), "none")
            raise InputError(
                f"the checkpoint (it looks like {looks}) has no key that begins with 'model.', as RAR's do; its first: {first}"
            )
        table = self.transformer.pos_embed.pos_embed
        if any("joint_blocks." in name for name in tensors):
            tensors = {name.removeprefix("diffusion_model."): value for name, value in tensors.items()}
            try:
                tensors = convert_sd3_transformer_checkpoint_to_diffusers(tensors | {"pos_embed": table})
            except KeyError as error:
                raise InputError(f"the checkpoint's restorer has no {error}, which SD3.5-medium has") from error
        fill(self.transformer, tensors | {"pos_embed.pos_embed": table}, "the checkpoint's restorer")
        left = sorted(
            {prefix for prefix in ("assessment.", "connector.") for name in everything if name.startswith(prefix)}
        )
        if left:
            warnings.warn(
                f"not loaded: {', '.join(left)} (the 7B language-model assessor); train the compact assessor, "
                "or use the folder teacher with the authors' program",
                stacklevel=2,
            )

    def load_base(self, folder: Path) -> None:
        """The autoencoder of a local SD3.5-medium, which RAR's checkpoint does not hold."""
        weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
        if not weights.is_file():
            raise InputError(
                f"{folder} has no {weights.relative_to(folder)}; expected diffusers' stable-diffusion-3.5-medium"
            )
        fill(self.autoencoder, load_file(weights), str(weights))


class RecurrentObjective(Objective[RAR]):
    """Recurrent training: every round starts from the one-step estimate of the round before, with gradient through it."""

    def __init__(self, model: RAR) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """`loss`, its parts, and the PSNR of the one-step estimates after each round."""
        model, config = self.model, self.model.config
        clean, degraded = model.to_side(batch.clean.float()), model.to_side(batch.degraded.float())
        with torch.no_grad():
            target, original = model.encode(clean), model.encode(degraded)
        parts = {name: clean.new_zeros(()) for name in ("flow", "presence", "ranking", "quality")}
        error = _mean(original - target)
        present = (batch.severities > 0).float()
        first = seen = model.assessor.look(original)
        latent, latents, views = original, [original], [first]
        for weight in config.round_weights:
            assessment = model.assessor.describe(seen)
            # A leaf counts as present as far as the error it caused is still there.
            left = (_mean(latent.detach() - target) / error.clamp_min(1e-6)).clamp(0, 1).sqrt()[:, None]
            parts["presence"] += F.binary_cross_entropy_with_logits(assessment.degradation, present * left)
            time = draw_times(len(latent), config.shift).to(latent)
            velocity = model.velocity(interpolate(target, latent, time), time, assessment)
            parts["flow"] += weight * F.mse_loss(velocity, latent - target)
            latent = latent - velocity
            # The assessor learns from what it sees; the restorer is not asked to please it.
            seen = model.assessor.look(latent.detach())
            latents.append(latent.detach())
            views.append(seen)
        with torch.no_grad():
            decoded = model.decode(torch.cat(latents)).chunk(len(latents))
            fidelity = [psnr(model.render(z, decoded[0], degraded).clamp(0, 1), clean) for z in decoded]
        for old, new in pairwise(range(len(latents))):
            preference = model.assessor.prefer(views[new], views[old], first)
            better = (fidelity[new] > fidelity[old]).float()
            parts["ranking"] += F.binary_cross_entropy_with_logits(preference, better)
            parts["quality"] += F.l1_loss(model.assessor.rate(views[new], first), quality_of(fidelity[new]))
        # The published weights are the flow's; the assessor's losses are means over the rounds.
        for name in ("presence", "ranking", "quality"):
            parts[name] = parts[name] / len(config.round_weights)
        figures = {f"psnr_{index}": value.mean() for index, value in enumerate(fidelity)}
        return {"loss": torch.stack(list(parts.values())).sum()} | parts | figures


def pass_through(coder: Any) -> None:
    """Turn a fresh encoder or decoder of diffusers, without down- or upsampling, into (nearly) the identity, in place.

    Residual blocks add nothing. A value x travels as the pair x, −x, because silu(x) − silu(−x) = x, beside two large
    constants that keep the last normalisation from depending on the picture. Needs two channels more than pairs.
    """
    constant = 100.0
    for block in coder.modules():
        if isinstance(block, ResnetBlock2D):
            torch.nn.init.zeros_(block.conv2.weight)
            torch.nn.init.zeros_(cast(Tensor, block.conv2.bias))
    first, last = coder.conv_in, coder.conv_out
    scale = constant * (2 / first.out_channels) ** 0.5
    with torch.no_grad():
        for parameter in (*first.parameters(), *last.parameters()):
            parameter.zero_()
        first.bias[-2:] = torch.tensor([constant, -constant])
        for channel in range(first.in_channels):
            for place, sign in ((2 * channel, 1.0), (2 * channel + 1, -1.0)):
                first.weight[place, channel, 1, 1] = sign
                last.weight[channel, place, 1, 1] = sign * scale


def draw_times(count: int, shift: float) -> Tensor:
    """Training times (count,) in [0, 1]: logit-normal(0, 1), pushed towards 1 by `shift`."""
    time = torch.randn(count).sigmoid()
    return shift * time / (1 + (shift - 1) * time)


def interpolate(restored: Tensor, degraded: Tensor, time: Tensor) -> Tensor:
    """Latents on the straight line from `restored` (time 0) to `degraded` (time 1)."""
    time = time[:, None, None, None]
    return (1 - time) * restored + time * degraded


def _mean(error: Tensor) -> Tensor:
    """Mean square (B,)."""
    return error.square().flatten(1).mean(1)


def _resize(image: Tensor, height: int, width: int) -> Tensor:
    if image.shape[-2:] == (height, width):
        return image
    return F.interpolate(image, (height, width), mode="bicubic", align_corners=False, antialias=True)


def build(size: Size) -> RAR:
    """`rar` with fresh weights."""
    if size == "published":
        return RAR(PUBLISHED)
    teacher = RAR(TINY)
    pass_through(teacher.autoencoder.encoder)
    pass_through(teacher.autoencoder.decoder)
    return teacher
