"""Writes the layouts (key → shape) of published checkpoints, from the papers' sizes and the authors' naming alone.

python tests/distill/teachers/layouts/make.py
"""

from __future__ import annotations

import json
from pathlib import Path

Layout = dict[str, list[int]]


def norm(dim: int) -> Layout:
    return {"body.weight": [dim], "body.bias": [dim]}


def under(prefix: str, layout: Layout) -> Layout:
    return {f"{prefix}.{key}": shape for key, shape in layout.items()}


def block(dim: int, heads: int, expansion: float = 2.66) -> Layout:
    hidden = int(dim * expansion)
    return {
        **under("norm1", norm(dim)),
        "attn.temperature": [heads, 1, 1],
        "attn.qkv.weight": [3 * dim, dim, 1, 1],
        "attn.qkv_dwconv.weight": [3 * dim, 1, 3, 3],
        "attn.project_out.weight": [dim, dim, 1, 1],
        **under("norm2", norm(dim)),
        "ffn.project_in.weight": [2 * hidden, dim, 1, 1],
        "ffn.dwconv.weight": [2 * hidden, 1, 3, 3],
        "ffn.project_out.weight": [dim, hidden, 1, 1],
    }


def level(name: str, dim: int, heads: int, count: int) -> Layout:
    return {k: v for i in range(count) for k, v in under(f"{name}.{i}", block(dim, heads)).items()}


def trunk(up4_3: int, reduce3: int) -> Layout:
    return {
        "patch_embed.proj.weight": [48, 3, 3, 3],
        **level("encoder_level1", 48, 1, 4),
        "down1_2.body.0.weight": [24, 48, 3, 3],
        **level("encoder_level2", 96, 2, 6),
        "down2_3.body.0.weight": [48, 96, 3, 3],
        **level("encoder_level3", 192, 4, 6),
        "down3_4.body.0.weight": [96, 192, 3, 3],
        **level("latent", 384, 8, 8),
        "up4_3.body.0.weight": [2 * up4_3, up4_3, 3, 3],
        "reduce_chan_level3.weight": [192, reduce3, 1, 1],
        **level("decoder_level3", 192, 4, 6),
        "up3_2.body.0.weight": [384, 192, 3, 3],
        "reduce_chan_level2.weight": [96, 192, 1, 1],
        **level("decoder_level2", 96, 2, 6),
        "up2_1.body.0.weight": [192, 96, 3, 3],
        **level("decoder_level1", 96, 1, 4),
        **level("refinement", 96, 1, 4),
        "output.weight": [3, 96, 3, 3],
    }


def prompt(dim: int, size: int, features: int) -> Layout:
    return {
        "prompt_param": [1, 5, dim, size, size],
        "linear_layer.weight": [5, features],
        "linear_layer.bias": [5],
        "conv3x3.weight": [dim, dim, 3, 3],
    }


def promptir() -> Layout:
    return {
        **trunk(up4_3=192, reduce3=288),
        **under("prompt1", prompt(64, 64, 96)),
        **under("prompt2", prompt(128, 32, 192)),
        **under("prompt3", prompt(320, 16, 384)),
        **under("noise_level1", block(160, 4)),
        **under("noise_level2", block(320, 4)),
        **under("noise_level3", block(704, 4)),
        "reduce_noise_level1.weight": [96, 160, 1, 1],
        "reduce_noise_level2.weight": [192, 320, 1, 1],
        "reduce_noise_level3.weight": [192, 704, 1, 1],
    }


UNUSED_IN_PROMPTIR: Layout = {
    "chnl_reduce1.weight": [64, 64, 1, 1],
    "chnl_reduce2.weight": [128, 128, 1, 1],
    "chnl_reduce3.weight": [256, 320, 1, 1],
    "reduce_noise_channel_1.weight": [48, 112, 1, 1],
    "reduce_noise_channel_2.weight": [96, 224, 1, 1],
    "reduce_noise_channel_3.weight": [192, 448, 1, 1],
}


def channel_cross(dim: int, heads: int) -> Layout:
    return {
        "temperature": [heads, 1, 1],
        "q.weight": [dim, dim, 1, 1],
        "q_dwconv.weight": [dim, 1, 3, 3],
        "kv.weight": [2 * dim, dim, 1, 1],
        "kv_dwconv.weight": [2 * dim, 1, 3, 3],
        "project_out.weight": [dim, dim, 1, 1],
    }


def frequency(dim: int) -> Layout:
    return {
        "para1": [dim, 1, 1],
        "para2": [dim, 1, 1],
        "conv.weight": [dim, 3, 3, 3],
        "conv1.weight": [dim, 3, 3, 3],
        "score_gen.weight": [2, 2, 7, 7],
        "score_gen.bias": [2],
        **under("channel_cross_l", channel_cross(dim, 4)),
        **under("channel_cross_h", channel_cross(dim, 4)),
        **under("channel_cross_agg", channel_cross(dim, 4)),
        "frequency_refine.SpatialGate.spatial.weight": [1, 2, 7, 7],
        "frequency_refine.SpatialGate.spatial.bias": [1],
        "frequency_refine.ChannelGate.mlp.0.weight": [dim // 16, dim, 1, 1],
        "frequency_refine.ChannelGate.mlp.2.weight": [dim, dim // 16, 1, 1],
        "frequency_refine.proj.weight": [dim, dim, 1, 1],
        "frequency_refine.proj.bias": [dim],
        "rate_conv.1.weight": [dim // 8, dim, 1, 1],
        "rate_conv.3.weight": [2, dim // 8, 1, 1],
    }


def adair() -> Layout:
    blocks = {k: v for i, dim in enumerate((384, 192, 96), 1) for k, v in under(f"fre{i}", frequency(dim)).items()}
    return {**trunk(up4_3=384, reduce3=384), **blocks}


def cross(dim: int, heads: int) -> Layout:
    return {
        **under("norm11", norm(dim)),
        **under("norm12", norm(dim)),
        **under("attn", channel_cross(dim, heads)),
        **under("norm2", norm(dim)),
        "ffn.project_in.weight": [4 * dim, dim, 1, 1],
        "ffn.dwconv.weight": [4 * dim, 1, 3, 3],
        "ffn.project_out.weight": [dim, 2 * dim, 1, 1],
    }


SIPL: Layout = {
    "privileged_dictionary1": [1, 96, 64, 64],
    "privileged_dictionary2": [1, 192, 32, 32],
    "privileged_dictionary3": [1, 384, 16, 16],
    **under("p1_cross", cross(384, 1)),
    **under("p2_cross", cross(192, 2)),
    **under("p3_cross", cross(96, 1)),
    **under("cross_p1", cross(384, 1)),
    **under("cross_p2", cross(192, 2)),
    **under("cross_p3", cross(96, 4)),
}


def conv(inputs: int, outputs: int, kernel: int) -> Layout:
    return {"weight": [outputs, inputs, kernel, kernel], "bias": [outputs]}


def dehaze_block(dim: int, heads: int, expansion: int, attends: bool) -> Layout:
    layout = {**under("attn.conv.0", conv(dim, dim, 3)), **under("attn.conv.2", conv(dim, dim, 3))}
    if attends:
        layout |= {
            "norm1.weight": [1, dim, 1, 1],
            "norm1.bias": [1, dim, 1, 1],
            **under("norm1.meta1", conv(1, dim, 1)),
            **under("norm1.meta2", conv(1, dim, 1)),
            **under("attn.V", conv(dim, dim, 1)),
            **under("attn.proj", conv(dim, dim, 1)),
            **under("attn.QK", conv(dim, 2 * dim, 1)),
            "attn.attn.relative_positions": [64, 64, 2],
            "attn.attn.meta.0.weight": [256, 2],
            "attn.attn.meta.0.bias": [256],
            "attn.attn.meta.2.weight": [heads, 256],
            "attn.attn.meta.2.bias": [heads],
        }
    return {
        **layout,
        **under("mlp.mlp.0", conv(dim, dim * expansion, 1)),
        **under("mlp.mlp.2", conv(dim * expansion, dim, 1)),
    }


def dehazeformer() -> Layout:
    """DehazeFormer-L; of 16, 16 and 16 encoder blocks the last 4, 8 and 12 attend."""
    stages = ((48, 2, 2, 12, 4), (96, 4, 4, 8, 8), (192, 6, 4, 4, 12), (96, 1, 2, 12, 0), (48, 1, 2, 12, 0))
    layout: Layout = {}
    for number, (dim, heads, expansion, convolving, attending) in enumerate(stages, 1):
        for index in range(convolving + attending):
            layout |= under(f"layer{number}.blocks.{index}", dehaze_block(dim, heads, expansion, index >= convolving))
    return {
        **layout,
        **under("patch_embed.proj", conv(3, 48, 3)),
        **under("patch_merge1.proj", conv(48, 96, 2)),
        **under("patch_merge2.proj", conv(96, 192, 2)),
        **under("skip1", conv(48, 48, 1)),
        **under("skip2", conv(96, 96, 1)),
        **under("patch_split1.proj.0", conv(192, 384, 1)),
        **under("patch_split2.proj.0", conv(96, 192, 1)),
        **under("patch_unembed.proj.0", conv(48, 4, 3)),
        "fusion1.mlp.0.weight": [12, 96, 1, 1],
        "fusion1.mlp.2.weight": [192, 12, 1, 1],
        "fusion2.mlp.0.weight": [6, 48, 1, 1],
        "fusion2.mlp.2.weight": [96, 6, 1, 1],
    }


if __name__ == "__main__":
    layouts = {
        "promptir": {**promptir(), **UNUSED_IN_PROMPTIR},
        "adair": adair(),
        "sipl-promptir": {**promptir(), **SIPL},
        "sipl-adair": {**adair(), **SIPL},
        "dehazeformer": dehazeformer(),
    }
    for name, layout in layouts.items():
        lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(shape)}" for key, shape in sorted(layout.items()))
        Path(__file__).with_name(f"{name}.json").write_text(f"{{\n{lines}\n}}\n")
