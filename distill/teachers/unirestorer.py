"""UniRestorer: a tree of experts by degradation and granularity, and a router that picks one expert a picture.

Lin et al., "UniRestorer: Universal Image Restoration via Adaptively Estimating Image Degradation at Proper Granularity",
2024. A degradation embedding is routed to a finest node and to a level; the expert is the node of that level on the path
to the finest one, so that a picture whose degradation is unsure is left to a coarser, more general expert. Names follow
the published layout, with the experts under `experts.`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from spandrel.architectures.NAFNet import NAFNet
from spandrel.architectures.RetinexFormer import RetinexFormer
from torch import Tensor, nn

from ...runtime.tree import LEAVES
from ..data import Batch
from ..metrics import psnr
from ..training import Objective
from .checkpoints import fill, unwrap
from .degradation_clip import DegradationCLIP
from .dehazeformer import DehazeFormer, DehazeFormerConfig
from .expert_tree import Children, ExpertTree
from .protocol import Round, Size, Teacher, Trajectory
from .restormer import Restormer, RestormerConfig
from .transformer import LayerNorm

RANK, ALPHA = 8, 16  # of every conv-LoRA adapter
NOISE = 1e-2  # least standard deviation of the gates' training noise
SHARPNESS = 8.0  # a finest node's first logit: this times the cosine of its centre and the estimate
ROUTER_BATCH = 64  # collected embeddings a step
FIT_STEPS = 300  # of the router alone, when the tree was built
WORDS = (*LEAVES, "clean")


class BiasFreeLayerNorm(nn.Module):
    """Restormer's other layer norm: divides by the standard deviation over channels, subtracts and adds nothing."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.body = nn.Module()
        self.body.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        deviation = x.var(1, keepdim=True, unbiased=False).add(1e-5).sqrt()
        return x / deviation * self.body.get_parameter("weight")[:, None, None]


def _bias_free_restormer() -> Restormer:
    network = Restormer(RestormerConfig())
    norms = [(name, norm) for name, norm in network.named_modules() if isinstance(norm, LayerNorm)]
    for name, norm in norms:
        network.set_submodule(name, BiasFreeLayerNorm(len(norm.body.weight)))
    return network


def _identity_nafnet() -> NAFNet:
    """Gives back its input before training, by its last layer alone, so that a short training has only to improve on it."""
    network = NAFNet(width=16, enc_blk_nums=[1, 1], middle_blk_num=1, dec_blk_nums=[1, 1])
    for parameter in network.ending.parameters():
        nn.init.zeros_(parameter)
    for name, parameter in network.named_parameters():
        if name.endswith((".beta", ".gamma")):
            nn.init.ones_(parameter)
    return network


class LocalMean(nn.Module):
    """The mean over a window of `side` around every position, moved inwards at the borders; of everything where that is less.

    What a network saw of a patch in training it sees of a large picture too (Chu et al., "Improving Image Restoration by
    Revisiting Global Information Aggregation", ECCV 2022).
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        if max(x.shape[-2:]) <= self.side:
            return F.adaptive_avg_pool2d(x, 1)
        for dim in (-2, -1):
            length = x.shape[dim]
            size = min(self.side, length)
            sums = F.pad(x.movedim(dim, -1), (1, 0)).cumsum(-1)
            means = (sums[..., size:] - sums[..., :-size]) / size
            places = torch.arange(length, device=x.device) - (size - 1) // 2
            x = means[..., places.clamp(0, length - size)].movedim(-1, dim)
        return x


def _local_nafnet() -> NAFNet:
    """Channel attention over windows 1.5 times as wide as the patches of 256² it was trained on."""
    network = NAFNet(width=64, enc_blk_nums=[1, 1, 1, 28], middle_blk_num=1, dec_blk_nums=[1, 1, 1, 1])
    stages = [*network.encoders, network.middle_blks, *network.decoders]
    for stage, level in zip(stages, (0, 1, 2, 3, 4, 3, 2, 1, 0), strict=True):
        assert isinstance(stage, nn.Sequential)
        for block in stage:
            block.get_submodule("sca").register_module("0", LocalMean(384 >> level))
    return network


BACKBONES: dict[str, Callable[[], nn.Module]] = {
    "restormer": lambda: Restormer(RestormerConfig()),
    "restormer-bias-free": _bias_free_restormer,
    "retinexformer": lambda: RetinexFormer(stage=1, n_feat=40, num_blocks=[1, 2, 2]),
    "dehazeformer": lambda: DehazeFormer(DehazeFormerConfig()),
    "nafnet-local": _local_nafnet,
    "nafnet-tiny": _identity_nafnet,
}


@dataclass(frozen=True)
class UniRestorerConfig:
    """Shape of the tree and its experts: backbones by level and node, or one that all share through conv-LoRA."""

    clip: Size
    children: Children
    experts: tuple[tuple[str, ...], ...] | str
    multiple: int
    # Stages of training, in samples: the embedding and the root expert learn; embeddings to cluster are collected.
    embedding_samples: int
    tree_samples: int


# Backbones by node as released. Where it adapts Restormer by LoRA (finest nodes 3 to 6), the sum is stored.
PUBLISHED = UniRestorerConfig(
    clip="published",
    children=((7,), (3, 3, 3, 7, 2, 2, 2)),
    experts=(
        ("restormer",),
        ("restormer-bias-free",) * 4 + ("dehazeformer", "retinexformer", "nafnet-local"),
        ("restormer-bias-free",) * 3
        + ("restormer",) * 14
        + ("dehazeformer",) * 2
        + ("retinexformer",) * 2
        + ("nafnet-local",),
    ),
    multiple=16,
    embedding_samples=400_000,
    tree_samples=20_000,
)
TINY = UniRestorerConfig(
    clip="tiny",
    children=((2,), (2, 2)),
    experts="nafnet-tiny",
    multiple=4,
    embedding_samples=96,
    tree_samples=128,
)


class SeparateExperts(nn.Module):
    """A network a node, as `l0_experts.0`, `l1_experts.i`, `l2_experts.i`."""

    def __init__(self, kinds: tuple[tuple[str, ...], ...]) -> None:
        super().__init__()
        self.names = [f"l{level}_experts.{i}" for level, row in enumerate(kinds) for i in range(len(row))]
        for level, row in enumerate(kinds):
            self.add_module(f"l{level}_experts", nn.ModuleList(BACKBONES[kind]() for kind in row))

    def forward(self, image: Tensor, nodes: Sequence[int]) -> Tensor:
        """Restore every picture of (B, 3, H, W) by the expert of its node."""
        restored = image.clone()
        for node in sorted(set(nodes)):
            rows = [row for row, wanted in enumerate(nodes) if wanted == node]
            restored[rows] = self.get_submodule(self.names[node])(image[rows]).to(image.dtype)
        return restored


class SharedExperts(nn.Module):
    """One network for all nodes: the root's expert as it is, every other node's with its own conv-LoRA adapter.

    peft adapts no depthwise convolution whose groups do not divide the rank; those stay the same for all nodes.
    """

    def __init__(self, kind: str, nodes: int) -> None:
        super().__init__()
        self.base = BACKBONES[kind]()
        convs = [(name, module) for name, module in self.base.named_modules() if isinstance(module, nn.Conv2d)]
        targets = [name for name, conv in convs if RANK % conv.groups == 0]
        for node in range(1, nodes):
            adapter = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=targets)
            inject_adapter_in_model(adapter, self.base, adapter_name=f"node{node}")
        self.requires_grad_(True)  # peft leaves all but the newest adapter frozen

    def forward(self, image: Tensor, nodes: Sequence[int]) -> Tensor:
        """Restore every picture of (B, 3, H, W) by the expert of its node, all in one pass."""
        names = [f"node{node}" if node else "__base__" for node in nodes]

        def choose(_: nn.Module, inputs: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            return inputs, {**options, "adapter_names": names}

        layers = [module for module in self.base.modules() if isinstance(module, LoraLayer)]
        hooks = [layer.register_forward_pre_hook(choose, with_kwargs=True) for layer in layers]
        try:
            return self.base(image)
        finally:
            for hook in hooks:
                hook.remove()


class Route(NamedTuple):
    """What the router makes of a batch of embeddings."""

    estimate: Tensor  # (B, width): estimated degradation, e_d
    granularity: Tensor  # (B, width): variance of the estimate, e_g
    leaf: Tensor  # (B, finest nodes): logits
    level: Tensor  # (B, levels): logits


def _estimator(width: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Linear(width, width, bias=False)]
    for _ in range(4):
        layers += [nn.LeakyReLU(0.1), nn.Linear(width, width, bias=False)]
    return nn.Sequential(*layers, nn.BatchNorm1d(width))


class UniRestorer(Teacher):
    """Degradation embedding → finest node and level → one expert."""

    gamma: nn.Parameter
    beta: nn.Parameter

    def __init__(self, config: UniRestorerConfig) -> None:
        super().__init__()
        self.config, self.multiple = config, config.multiple
        self.daclip_model = DegradationCLIP(config.clip)
        width = self.feature_width = self.daclip_model.width
        self.tree = ExpertTree(config.children, width)
        nodes = sum(self.tree.levels)
        kinds = config.experts
        self.experts = SharedExperts(kinds, nodes) if isinstance(kinds, str) else SeparateExperts(kinds)
        self.mu, self.sigma = _estimator(width), _estimator(width)
        self.lf_gate = nn.Sequential(nn.Linear(width, 2 * self.tree.levels[-1], bias=False))
        self.layer_gate = nn.Sequential(nn.Linear(width, 2 * len(self.tree.levels), bias=False))
        for gate in (self.lf_gate, self.layer_gate):
            # An untrained router leaves everything to the root.
            nn.init.zeros_(gate[0].get_parameter("weight"))
        self.gamma = nn.Parameter(torch.full((1,), 1e-4))
        # −7 as published: about the variance of a unit vector's components at width 512.
        self.beta = nn.Parameter(torch.full((1,), -7.0 + math.log(512 / width)))
        # In the published layout, where they leave pictures as they are.
        self.register_buffer("mean", torch.zeros(1))
        self.register_buffer("std", torch.ones(1))

    def embed(self, image: Tensor) -> Tensor:
        """Degradation embeddings (B, width) of (B, 3, H, W) in [0, 1], not normalised."""
        return self.daclip_model.image_embedding(image)

    def route(self, embedding: Tensor) -> Route:
        """Estimates and gate logits for embeddings (B, width); in training the gates are noisy."""
        estimate, spread = self.mu(embedding), self.sigma(embedding)
        granularity = 1e-6 + torch.exp(self.gamma * spread + self.beta)
        return Route(estimate, granularity, self._gate(self.lf_gate(estimate)), self._gate(self.layer_gate(spread)))

    def _gate(self, both: Tensor) -> Tensor:
        logits, deviation = both.chunk(2, -1)
        if self.training:
            logits = logits + torch.randn_like(logits) * (F.softplus(deviation) + NOISE)
        return logits

    def nodes(self, route: Route) -> list[int]:
        """The most probable level's node on the path to the most probable finest node."""
        return self.tree.paths[route.leaf.argmax(-1), route.level.argmax(-1)].tolist()

    def grow(self, embeddings: Tensor, presence: Tensor) -> None:
        """Build the tree from embeddings (N, width) and degradation labels (N, our leaves).

        The leaf gate starts with the directions of the centres, so that a centre's own node has the largest logit.
        """
        self.tree.grow(embeddings, presence)
        directions = F.normalize(self.tree.finest, dim=-1)
        with torch.no_grad():
            # Batch norm gives estimates unit variance a component.
            scale = SHARPNESS / math.sqrt(embeddings.shape[1])
            self.lf_gate[0].get_parameter("weight")[: len(directions)] = scale * directions

    def rounds(self, image: Tensor, count: int) -> Trajectory:
        """Round 1 is the published method. `degradation` is how often each of our leaves was present in training
        pictures of the finest nodes, weighted by their probability; None where the tree was not grown here."""
        trajectory: Trajectory = []
        for _ in range(count):
            embedding = self.embed(image)
            route = self.route(embedding)
            image = self.experts(image, self.nodes(route)).float().clamp(0, 1)
            presence = self.tree.presence[self.tree.spans[-1].start :]
            degradation = route.leaf.softmax(-1) @ presence if self.tree.grown else None
            trajectory.append(Round(image, degradation=degradation, features=embedding[:, :, None, None]))
        return trajectory

    def passes(self, image: Tensor) -> dict[str, Callable[[], Any]]:
        embedding = self.embed(image)
        return {
            "embedding": lambda: self.embed(image),
            "router": lambda: self.route(embedding),
            "root expert": lambda: self.experts(image, [0] * len(image)),
        }

    def objective(self) -> Objective[UniRestorer]:
        return TreeObjective(self)

    def load_published(self, content: Mapping[str, Any]) -> None:
        """Conv-LoRA experts are folded. Left out: the frozen tower's second copy, and experts that no path leads to."""
        own = self.state_dict()
        known = ("daclip_model.visual.", f"l{len(self.tree.levels) - 1}_experts.{self.tree.levels[-1]}.")
        tensors = {n: t for n, t in fold_conv_lora(unwrap(content)).items() if not n.startswith(known)}
        tensors = {f"experts.{n}" if f"experts.{n}" in own else n: t for n, t in tensors.items()}
        fill(self, tensors | {n: t for n, t in own.items() if n.startswith("tree.")}, "this checkpoint")


def fold_conv_lora(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """loralib's convolutions (`X.conv.weight`, `X.lora_A`, `X.lora_B`) as plain ones (`X.weight`); the rest unchanged."""
    folded = dict(tensors)
    for name in [name for name in tensors if name.endswith(".lora_A")]:
        layer = name.removesuffix(".lora_A")
        first, second = folded.pop(name), folded.pop(f"{layer}.lora_B")
        weight = folded.pop(f"{layer}.conv.weight")
        folded[f"{layer}.weight"] = weight + (ALPHA / RANK) * (second @ first).view(weight.shape)
    return folded


def granularity_loss(estimate: Tensor, granularity: Tensor, centre: Tensor) -> Tensor:
    """L_dg: how unlikely the centre is under a normal distribution around the estimate; (B, width) each."""
    return ((centre - estimate).square() / (2 * granularity) + 0.5 * granularity.log()).mean()


def balance_loss(probabilities: Tensor) -> Tensor:
    """L_aux: squared coefficient of variation of a batch's total probability (B, choices) a choice."""
    load = probabilities.sum(0)
    return load.var() / load.mean().square()


class TreeObjective(Objective[UniRestorer]):
    """Everything in one run: embedding and root expert, then the tree, then its experts together with the router.

    An expert learns from the pictures whose embedding descends to its node. The router learns by
    L1 + 0.1·L_dg + 0.01·L_aux, where experts are fixed. The choice of an expert has no gradient: L1 reaches the gates by
    the probability of what was chosen, against the picture's loss under an expert of its own path.
    """

    embeddings: Tensor
    presence: Tensor
    seen: Tensor

    def __init__(self, model: UniRestorer) -> None:
        super().__init__()
        self.model = model
        # Buffers, so that a resumed run goes on where it was.
        count = model.config.tree_samples
        self.register_buffer("embeddings", torch.zeros(count, model.daclip_model.width))
        self.register_buffer("presence", torch.zeros(count, len(LEAVES)))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """`loss`, its parts, and the PSNR of the input and of what was restored."""
        if self.model.tree.grown:
            losses, restored = self._tree(batch)
        else:
            losses, restored = self._root(batch)
        with torch.no_grad():
            figures = {"input": batch.degraded, "restored": restored.clamp(0, 1)}
            return losses | {f"psnr_{name}": psnr(picture, batch.clean).mean() for name, picture in figures.items()}

    def _root(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        model = self.model
        restored = model.experts(batch.degraded, [0] * len(batch.degraded))
        losses = {"loss": (restored - batch.clean).abs().mean()}
        present = (batch.severities > 0).float()
        filled = int(self.seen) - model.config.embedding_samples
        self.seen += len(present)
        if filled < 0:
            clean = (present.sum(1, keepdim=True) == 0).float()
            target = torch.cat([present, clean], 1)
            clip = model.daclip_model
            logits = clip.similarity(model.embed(batch.degraded), clip.text_embedding(WORDS))
            losses["embedding"] = F.cross_entropy(logits, target / target.sum(1, keepdim=True))
            losses["loss"] = losses["loss"] + 0.1 * losses["embedding"]
            return losses, restored
        with torch.no_grad():
            rows = slice(filled, filled + len(present))
            room = len(self.embeddings[rows])
            self.embeddings[rows], self.presence[rows] = model.embed(batch.degraded)[:room], present[:room]
        if rows.stop >= len(self.embeddings):
            model.grow(self.embeddings, self.presence)
            self._fit_estimates()
        return losses, restored

    @torch.enable_grad()
    def _fit_estimates(self) -> None:
        """Fit the router's estimates to the new tree by L_dg, so that its experts meet their own pictures from the start."""
        model = self.model
        optimizer = torch.optim.AdamW(
            [*model.mu.parameters(), *model.sigma.parameters(), model.gamma, model.beta], 2e-3
        )
        for _ in range(FIT_STEPS):
            embedding = self._collected()
            optimizer.zero_grad()
            self._dg(model.route(embedding), embedding).backward()
            optimizer.step()
        optimizer.zero_grad()

    def _collected(self) -> Tensor:
        """Some of the collected embeddings: batch norm needs more pictures than experts can take."""
        return self.embeddings[torch.randint(len(self.embeddings), (ROUTER_BATCH,), device=self.embeddings.device)]

    def _dg(self, route: Route, embedding: Tensor) -> Tensor:
        # Batch norm gives estimates unit variance a component; centres lie in the unit sphere.
        estimate = route.estimate / math.sqrt(embedding.shape[1])
        return granularity_loss(estimate, route.granularity, self.model.tree.nearest(embedding))

    def _tree(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        model, tree = self.model, self.model.tree
        with torch.no_grad():
            embedding = model.embed(batch.degraded)
        level = int(torch.randint(len(tree.levels), ()))
        own = model.experts(batch.degraded, tree.paths[tree.descend(embedding), level].tolist())
        own_error = (own - batch.clean).abs().flatten(1).mean(1)

        embedding = torch.cat([embedding.float(), self._collected()])
        route = model.route(embedding)
        leaf, levels = route.leaf.softmax(-1), route.level.softmax(-1)
        with torch.no_grad():
            routed = model.experts(batch.degraded, model.nodes(route)[: len(own)])
            error = (routed - batch.clean).abs().flatten(1).mean(1)
        chosen = (leaf.amax(-1) * levels.amax(-1))[: len(own)]
        fidelity = error.mean() + ((error - own_error.detach()) * (chosen / chosen.detach() - 1)).mean()
        dg = self._dg(route, embedding)
        aux = balance_loss(levels)
        loss = own_error.mean() + fidelity + 0.1 * dg + 0.01 * aux
        return {"loss": loss, "experts": own_error.mean(), "router": fidelity, "dg": dg, "aux": aux}, routed


def build(size: Size) -> UniRestorer:
    """`unirestorer`: as released, one backbone a node; tiny: conv-LoRA over one."""
    return UniRestorer(TINY if size == "tiny" else PUBLISHED).eval()
