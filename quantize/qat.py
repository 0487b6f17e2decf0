"""Quantisation-aware training: the rounded weights of quantised graphs are trained until they restore as the student does.

Training starts where post-training quantisation ended and keeps its scales: ranges that were equalised, narrowed and shared
between methods are what a target was promised. Rounding is passed through by its gradient (straight-through estimator,
Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, fx, nn

from ..distill.data import Batch, Mixture, Photographs
from ..distill.distillation import by_look, own_gates, tokens_by_look
from ..distill.methods import methods
from ..distill.metrics import psnr
from ..distill.recipe import Schedule
from ..distill.student import Student
from ..distill.training import Objective, Progress, train
from ..runtime.methods import REFINE
from ..runtime.routing import Routing, believed, refiner
from .layers import WEIGHTED, attribute, parameters, steps, weights
from .ranges import DEQUANTIZE, QUANTIZE

# Mean squared distance at which int8 follows the student well (50 dB), however far the student is from the truth.
FLOOR = 1e-5
# Above this error of its own the student is to be followed no less closely (40 dB): an offset of the whole picture shows.
CEILING = 1e-4
# Share of steps on a first iteration, which the second, of the mirror image, is too; the others go on from its result.
FIRST = 0.8
# Share of samples that are a tile of a larger picture.
WIDE = 0.6


def make_schedule(minutes: float, tile: int, seed: int) -> Schedule:
    """Small steps on single tiles, the shape the graphs were made for."""
    return Schedule(
        minutes=minutes,
        batch=1,
        patch=tile,
        learning_rate=1e-5,
        warmup=20,
        clip=1.0,
        ema=0.98,
        weight_decay=0,
        seed=seed,
    )


def fine_tune(
    graphs: Mapping[str, fx.GraphModule],
    student: Student,
    routing: Routing,
    photos: Path,
    schedule: Schedule,
    out: Path,
    progress: Progress,
) -> None:
    """Train weights and biases of all methods' quantised graphs in place, from `student`, whose graphs they are.

    `schedule`: of `make_schedule`. `out`: folder of the run, which resumes there. Raises InputError without a picture.
    """
    model = nn.ModuleDict({name: _trainable(graph) for name, graph in graphs.items()})
    source = Photographs(photos, Mixture(wide=WIDE), schedule.patch, schedule.seed)
    averaged = train(SelfDistillation(model, student, routing), schedule, source, out, progress)
    model.load_state_dict(load_file(averaged))
    for name, graph in graphs.items():
        trained = model[name]
        assert isinstance(trained, fx.GraphModule)
        _write_back(trained, graph)


class _Seen(NamedTuple):
    """What encode says of a picture, the gates that it opens and the method that refines it."""

    features: list[Tensor]
    tokens: Tensor
    assessment: Tensor
    gates: Tensor
    method: str


class SelfDistillation(Objective[nn.ModuleDict]):
    """What int8 costs an iteration that opens its own gates, as a logarithm: log(1 + E / D).

    E: squared distance of the picture from the full-precision student's, D: of the student's from the truth, between
    `FLOOR` and `CEILING`.
    """

    def __init__(self, model: nn.ModuleDict, student: Student, routing: Routing) -> None:
        super().__init__()
        self.model = model
        # In a list, so that the frozen student is no part of what is trained, averaged or saved.
        self._student = [student.eval().requires_grad_(False)]
        self._routing = routing

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """`loss`, its parts, and the decibels lost of an iteration drawn by lot, on the student's own trajectory."""
        with torch.autocast(batch.clean.device.type, enabled=False):
            return self._losses(batch)

    def _losses(self, batch: Batch) -> dict[str, Tensor]:
        student = methods(self._student[0].to(batch.clean.device))
        with torch.no_grad():
            current = batch.degraded
            if torch.rand(()) >= FIRST:
                current = self._iterate(student, batch, current)[0].clamp(0, 1)
            target, quality, told = self._iterate(student, batch, current)
            allowed = (target.clamp(0, 1) - batch.clean).square().mean().clamp(max=CEILING) + FLOOR
        # Its own gates: nearly half of what int8 cost in haze came through experts that opened a little differently.
        got, predicted, said = self._iterate(dict(self.model.items()), batch, current, told.method)
        picture = torch.log1p((got - target).square().mean() / allowed)
        latent = told.features[2]
        bottleneck = (said.features[2] - latent).square().mean() / latent.square().mean()
        heads = (said.assessment - told.assessment).square().mean() + 100 * (predicted - quality).square().mean()
        lost = psnr(target.clamp(0, 1), batch.clean) - psnr(got.clamp(0, 1), batch.clean)
        return {
            "loss": picture + 0.1 * bottleneck + 0.01 * heads,
            "picture": picture,
            "bottleneck": bottleneck,
            "heads": heads,
            "lost_db": lost.mean(),
        }

    def _iterate(
        self, called: Mapping[str, Callable[..., Any]], batch: Batch, current: Tensor, method: str | None = None
    ) -> tuple[Tensor, Tensor, _Seen]:
        """What a student's or graphs' methods make of `current`, with its predicted quality and what encode said of it.

        `method`: that refines it; None for the one that encode's words choose.
        """
        evidence = self._see(called["encode"], batch, batch.degraded)
        guess = evidence if current is batch.degraded else self._see(called["encode"], batch, current)
        restored, quality = called[method or guess.method](
            current, *evidence.features, *guess.features[1:], guess.tokens, guess.gates
        )
        return restored, quality, guess

    def _see(self, encode: Callable[..., Any], batch: Batch, picture: Tensor) -> _Seen:
        """Of a tile of a larger picture as the runtime has it: tokens and the first iteration's gates by the look."""
        *features, tokens, assessment = encode(picture)
        agreed = assessment
        if not torch.equal(batch.look, batch.degraded):
            *_, context, look = encode(batch.look)
            tokens = tokens_by_look(self._routing, tokens, look, context)
            if picture is batch.degraded:
                agreed = by_look(self._routing, assessment, look)
        gates = own_gates(self._routing, agreed, self._student[0].config.rank)
        came = picture is batch.degraded
        method = refiner(self._routing, believed(self._routing, agreed[0, 2:].tolist())) if came else REFINE
        return _Seen(features, tokens, assessment, gates, method)


def _biases(graph: fx.GraphModule) -> Iterator[str]:
    """Names of the biases that NNCF corrected (with the nearest codes), which are constants; others are parameters already."""
    for node in graph.graph.nodes:
        if node.target in WEIGHTED and len(node.args) > 2 and isinstance(node.args[2], fx.Node):
            name = str(node.args[2].target)
            if node.args[2].op == "get_attr" and not isinstance(attribute(graph, name), nn.Parameter):
                yield name


def _trainable(quantized: fx.GraphModule) -> fx.GraphModule:
    """A copy that rounds by operations with a gradient, from weights that are parameters."""
    copied = copy.deepcopy(quantized)
    graph = fx.GraphModule(copied, copied.graph)  # exported modules refuse train()
    nodes = graph.graph
    for node, codes in list(weights(graph)):
        with torch.no_grad():
            scale, zero, *axis = parameters(graph, node)
            weight = nn.Parameter(node.target(attribute(graph, codes), scale, zero, *node.args[3:]).float())
        graph.register_parameter(f"{codes}_weight", weight)
        if axis:  # what rounds with a gradient wants wider zero-points
            graph.register_buffer(str(node.args[2].target), zero.int())
        rounding = torch.fake_quantize_per_channel_affine if axis else torch.fake_quantize_per_tensor_affine
        with nodes.inserting_before(node):
            parameter = nodes.get_attr(f"{codes}_weight")
            rounded = nodes.call_function(rounding, (parameter, *node.args[1:-1]))
        node.replace_all_uses_with(rounded)
    for node in list(nodes.nodes):
        if node.target is DEQUANTIZE and getattr(node.args[0], "target", None) is QUANTIZE:
            with nodes.inserting_before(node):
                rounded = nodes.call_function(
                    torch.fake_quantize_per_tensor_affine, (node.args[0].args[0], *node.args[1:-1])
                )
            node.replace_all_uses_with(rounded)
    for name in list(_biases(graph)):
        bias = nn.Parameter(attribute(graph, name).detach().clone())
        delattr(graph, name)
        graph.register_parameter(name, bias)
    nodes.eliminate_dead_code()
    graph.recompile()
    return graph


@torch.no_grad()
def _write_back(trained: fx.GraphModule, quantized: fx.GraphModule) -> None:
    """Round the trained weights into the codes of the quantised graph, and hand over everything else that was trained."""
    state = trained.state_dict()
    for node, codes in weights(quantized):
        weight, stored = state[f"{codes}_weight"], attribute(quantized, codes)
        scale, zero = steps(quantized, node, weight.ndim)
        stored.copy_((torch.round(weight / scale) + zero).clamp(*node.args[-3:-1]).to(stored.dtype))
    for name, value in (*quantized.named_parameters(), *quantized.named_buffers()):
        if name in state and value.is_floating_point():
            value.copy_(state[name])
