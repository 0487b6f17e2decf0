"""Cross-layer equalisation: channels are rescaled so that one int8 range suits all of them; the student computes the same.

Between a layer and the next lie sums, averages and ReLU, which commute with a positive factor a channel: dividing what a
layer writes and multiplying what the next reads changes no output (Nagel et al., "Data-Free Quantization Through Weight
Equalization and Bias Correction", ICCV 2019, section 4.1). How far a channel's range moves from activations into weights
is balanced as in SmoothQuant (Xiao et al., ICML 2023, equation 4).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..distill.methods import methods
from ..distill.student import Block, ExpertBlock, Refiner, Student
from .calibration import Samples

Layer = nn.Conv2d | nn.ConvTranspose2d | nn.Linear
# A channel moves by at most this factor: beyond, its weights would drown in those of others.
LARGEST = 64.0
# Below this a channel never spoke while ranges were measured, and stays as it is.
SILENT = 1e-5


class Consumer(NamedTuple):
    """A layer that reads a stream's channels, from its input channel `start` on."""

    layer: Layer
    start: int = 0


class Stream(NamedTuple):
    """Channels that several layers write (their sum, through ReLU) and several read."""

    producers: tuple[Layer, ...]
    consumers: tuple[Consumer, ...]


def equalise(student: Student, samples: Samples, strength: float) -> Student:
    """A copy with equal outputs whose channels of a stream have similar ranges over `samples`.

    `strength`: 1 gives all channels of a stream one range, 0 balances the weights that read them.
    """
    student = copy.deepcopy(student)
    streams = list(_streams(student))
    for stream, reach in zip(streams, _reaches(student, streams, samples), strict=True):
        weights = torch.stack([_column_reach(consumer, len(reach)) for consumer in stream.consumers]).amax(0)
        factor = reach.clamp_min(SILENT) ** strength / weights.clamp_min(1e-4) ** (1 - strength)
        factor = (factor / factor.log().mean().exp()).clamp(1 / LARGEST, LARGEST)
        factor[reach < SILENT] = 1.0
        for layer in stream.producers:
            _divide_outputs(layer, factor)
        for consumer in stream.consumers:
            _multiply_inputs(consumer, factor)
    return student


def _streams(student: Student) -> Iterable[Stream]:
    encoder, head = student.encoder, student.encoder.head
    refiners = student.refiners.values()
    w1, w2, _ = student.config.widths
    yield from _scale(
        [encoder.stem], [encoder.down1, *(r.original1 for r in refiners)], encoder.level1, Consumer(head.hidden)
    )
    fused2 = [layer for r in refiners for layer in (r.fuse2.original, r.fuse2.current)]
    yield from _scale([encoder.down1], [encoder.down2, *fused2], encoder.level2, Consumer(head.hidden, w1))
    fused3 = [layer for r in refiners for layer in (r.fuse3.original, r.fuse3.current)]
    read3: list[Layer] = [encoder.tokens.key, encoder.tokens.value, *fused3]
    yield from _scale([encoder.down2], read3, encoder.level3, Consumer(head.hidden, w1 + w2))
    for refiner in refiners:
        yield from _refiner_streams(refiner, w1, w2)


def _refiner_streams(refiner: Refiner, w1: int, w2: int) -> Iterable[Stream]:
    attention, context, head = refiner.attention, refiner.context.conv, refiner.head
    yield from _scale(
        [refiner.fuse3.original, refiner.fuse3.current, context, attention.project],
        [context, attention.query, refiner.up3],
        refiner.level3,
        Consumer(head.hidden, w1 + w2),
    )
    yield from _scale(
        [refiner.up3, refiner.fuse2.original, refiner.fuse2.current],
        [refiner.up2],
        refiner.level2,
        Consumer(head.hidden, w1),
    )
    yield from _scale(
        [refiner.up2, refiner.original1, refiner.stem],
        [refiner.correction.gain, refiner.correction.bias],
        refiner.level1,
        Consumer(head.hidden),
    )


def _scale(
    producers: list[Layer], consumers: list[Layer], blocks: Iterable[nn.Module], head: Consumer
) -> Iterable[Stream]:
    """The stream through one scale's residual blocks, and the streams inside each block."""
    inside: list[Stream] = []
    producers, consumers = list(producers), list(consumers)
    for block in blocks:
        assert isinstance(block, Block)
        producers.append(block.conv2)
        consumers.append(block.conv1)
        hidden: list[Layer] = [block.conv1]
        if isinstance(block, ExpertBlock):
            consumers.append(block.lora_a)
            hidden.append(block.lora_b)
            inside.append(Stream((block.lora_a,), (Consumer(block.lora_b),)))
        inside.append(Stream(tuple(hidden), (Consumer(block.conv2),)))
    yield Stream(tuple(producers), (*(Consumer(layer) for layer in consumers), head))
    yield from inside


@torch.no_grad()
def _reaches(student: Student, streams: list[Stream], samples: Samples) -> list[Tensor]:
    """Largest absolute value of every channel of every stream, as its convolutions read it."""
    found: list[Tensor | None] = [None] * len(streams)

    def watch(index: int, layer: Layer) -> torch.utils.hooks.RemovableHandle:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            reach = inputs[0].abs().amax((0, 2, 3))
            before = found[index]
            found[index] = reach if before is None else torch.maximum(before, reach)

        return layer.register_forward_pre_hook(hook)

    handles = [
        watch(index, consumer.layer)
        for index, stream in enumerate(streams)
        for consumer in stream.consumers
        if not isinstance(consumer.layer, nn.Linear)  # heads read averages
    ]
    for name, method in methods(student).items():
        for row in samples[name]:
            method(*row)
    for handle in handles:
        handle.remove()
    return [reach for reach in found if reach is not None]


def _column_reach(consumer: Consumer, channels: int) -> Tensor:
    """How large an input channel's weights are, relative to the largest of each output's weights (their int8 range)."""
    weight = consumer.layer.weight.detach()
    if isinstance(consumer.layer, nn.ConvTranspose2d):  # one range for all of it; inputs come first
        return weight.abs().amax((1, 2, 3)) / weight.abs().max()
    weight = weight.flatten(2).abs().amax(2) if weight.ndim == 4 else weight.abs()
    rows = weight / weight.amax(1, keepdim=True).clamp_min(1e-9)
    return rows[:, consumer.start : consumer.start + channels].amax(0)


@torch.no_grad()
def _divide_outputs(layer: Layer, factor: Tensor) -> None:
    axis = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
    layer.weight.div_(_along(factor, axis, layer.weight.ndim))
    if layer.bias is not None:
        layer.bias.div_(factor)


@torch.no_grad()
def _multiply_inputs(consumer: Consumer, factor: Tensor) -> None:
    axis = 0 if isinstance(consumer.layer, nn.ConvTranspose2d) else 1
    columns = consumer.layer.weight.narrow(axis, consumer.start, len(factor))
    columns.mul_(_along(factor, axis, columns.ndim))


def _along(factor: Tensor, axis: int, dimensions: int) -> Tensor:
    return factor.reshape([-1 if d == axis else 1 for d in range(dimensions)])
