"""CLIP that sees degradations: DA-CLIP's image controller on open_clip's towers.

A trainable copy of the image tower, the controller, gives a degradation embedding beside words such as "hazy". Luo et al.,
"Controlling Vision-Language Models for Multi-Task Image Restoration", ICLR 2024. Their content embedding, by the frozen
tower under control, is read by no restorer here and not computed. Parameter names follow the authors' checkpoints,
without their second copy of the image tower under `visual.`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.model import CLIP
from torch import Tensor, nn

from .constants import Constants
from .protocol import Size

VOCABULARY = 49408  # of open_clip's tokenizer
LARGEST_SCALE = 100.0  # CLIP's bound on its logit scale
CONFIGS: dict[str, dict[str, Any]] = {
    # ViT-B-32
    "published": {
        "embed_dim": 512,
        "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32},
        "text_cfg": {"context_length": 77, "vocab_size": VOCABULARY, "width": 512, "heads": 8, "layers": 12},
    },
    "tiny": {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 16, "vocab_size": VOCABULARY, "width": 32, "heads": 2, "layers": 2},
    },
}


class DegradationCLIP(Constants):
    """Embeds pictures by their degradation, and words, in one space. The towers of `clip` stay frozen.

    But for the tiny one's text transformer, which nobody trained before.
    """

    _mean: Tensor
    _std: Tensor

    def __init__(self, size: Size):
        super().__init__()
        config = CONFIGS[size]
        self.width: int = config["embed_dim"]
        self.clip: Any = CLIP(**config)
        self.visual_control: Any = copy.deepcopy(self.clip.visual)
        self.visual_control.transformer = _ControlTransformer(self.visual_control.transformer)
        self.logit_scale: nn.Parameter = copy.deepcopy(self.clip.logit_scale)
        self.clip.requires_grad_(False)
        if size == "tiny":  # no pretraining has told its words apart
            self.clip.transformer.requires_grad_(True)
        self._side: int = config["vision_cfg"]["image_size"]
        self._context: int = config["text_cfg"]["context_length"]
        self._tokenize = open_clip.SimpleTokenizer(context_length=self._context)
        self.register_buffer("_mean", torch.tensor(OPENAI_DATASET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("_std", torch.tensor(OPENAI_DATASET_STD).view(1, 3, 1, 1), persistent=False)

    def image_embedding(self, image: Tensor, *, resize: bool = True) -> Tensor:
        """The degradation embedding (B, width), not normalised, of (B, 3, H, W) in [0, 1].

        `resize`: scale the whole picture to the tower's input; otherwise the centre is cropped at its own resolution,
        which keeps blur and noise as they are (UIR-LoRA's correction).
        """
        tower = self.visual_control
        tokens = tower.transformer(tower._embeds(self._prepare(image, resize)))
        return tower._pool(tokens)[0] @ tower.proj

    def text_embedding(self, words: Sequence[str]) -> Tensor:
        """Words → (n, width), not normalised."""
        return self.constant(tuple(words), lambda: self._read(words))

    def _read(self, words: Sequence[str]) -> Tensor:
        tokens = self._tokenize(list(words), context_length=self._context)
        return self.clip.encode_text(tokens.to(self.logit_scale.device))

    def similarity(self, image: Tensor, words: Tensor) -> Tensor:
        """Logits (B, n) of image embeddings (B, width) over word embeddings (n, width): cosines × CLIP's scale."""
        scale = self.logit_scale.clamp(max=math.log(LARGEST_SCALE)).exp()
        # Not a matrix product: autocast would round these to bfloat16, and the scale magnifies the error.
        return scale * F.cosine_similarity(image.float()[:, None], words.float()[None], dim=-1)

    def _prepare(self, image: Tensor, resize: bool) -> Tensor:
        if resize:
            size = (self._side, self._side)
            # Antialiased scaling does not exist in half precision on CPU.
            image = F.interpolate(image.float(), size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        else:
            rows, columns = (_centre(length, self._side, image.device) for length in image.shape[-2:])
            image = image[..., rows, :][..., columns]
        return (image - self._mean) / self._std


class _ControlTransformer(nn.Module):
    """The controller's blocks. `zero_modules`, towards the frozen tower, are in the checkpoints and in no computation here."""

    def __init__(self, transformer: Any):
        super().__init__()
        self.transformer = transformer
        self.zero_modules = nn.ModuleList(
            nn.Linear(transformer.width, transformer.width) for _ in transformer.resblocks
        )
        for parameter in self.zero_modules.parameters():
            nn.init.zeros_(parameter)

    def forward(self, tokens: Tensor) -> Tensor:
        for block in self.transformer.resblocks:
            tokens = block(tokens)
        return tokens


def _centre(length: int, side: int, device: torch.device) -> Tensor:
    """Indices of the `side` pixels in the middle of `length`; a shorter axis is mirrored again and again."""
    index = torch.arange(side, device=device) + max(0, (length - side) // 2)
    index = index % (2 * length)
    return torch.minimum(index, 2 * length - 1 - index)
