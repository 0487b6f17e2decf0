"""Routing: from an assessment to the experts' gates.

Leaves are independent (a clean picture opens no gate, a mixture several). Confidence c = sigmoid((τ − granularity) / s)
splits each belief between the leaf, c·p(leaf), and its parent, (1 − c)·max p(leaves): uncertain estimates fall back to
the coarser expert (UniRestorer, section 3.3). All but the `top` largest gates become 0 (UIR-LoRA, equation 5).

Of a picture of many tiles, haze and low light are judged by a look at the whole picture made small, so that neighbours agree
on what is all over it. Where the look is in doubt they are left, since taking them from a picture that has none costs more than
leaving them; of light, which falls unevenly, tiles are asked too. What shrinking hides (blur, noise, rain,
JPEG: UIR-LoRA judges blur on crops) is judged by the tile alone, which is not resized.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import cached_property
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

from .errors import InputError
from .methods import REFINE, specialist_method
from .tree import TREE

Gates = dict[str, float]


class TokenSource(str, Enum):
    """Whose tokens a refine of a tile asks."""

    OWN = "own"
    LOOK = "look"
    MEAN = "mean"


class Prospect(NamedTuple):
    """What the assessment of a picture as it came promises of its restoration.

    `belief`: in the likeliest degradation; `variance`: the share of a restoration's mean squared error that differs from view
    to view; `upright`: whether it is not to be turned upside down.
    """

    belief: float
    variance: float
    upright: bool


# A logit above which what is said of a whole picture is believed (a belief of 0.73); see Routing.likely.
LIKELY = 1.0
# See Routing.variance; measured on `small` when one refiner did all (docs/decisions.md).
VARIANCE = {"rain": 0.17, "snow": 0.15, "haze": 0.07, "low_light": 0.07, "noise": 0.12, "blur": 0.01, "jpeg": 0.02}
UNKNOWN_VARIANCE = 0.1


class Routing(BaseModel):
    """The degradation tree and the constants of routing, as bundle.json holds them."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    tree: dict[str, tuple[str, ...]] = TREE
    threshold: float = Field(
        default=-3.0, description="τ: granularity (log-variance) at which leaf and parent share equally"
    )
    softness: float = Field(default=0.7, gt=0, description="s")
    top: int = Field(default=4, gt=0, description="K: gates kept")
    whole: tuple[str, ...] = Field(default=("haze", "low_light"), description="leaves judged by the whole picture")
    likely: dict[str, float] = Field(
        default={}, description="logit of a look at the whole picture above which it is believed, by leaf; 1 of others"
    )
    uneven: tuple[str, ...] = Field(default=("low_light",), description="of these, those that tiles judge too")
    look_tokens: tuple[str, ...] = Field(
        default=(), description="leaves of which the first look tells tiles more by its tokens than their own tell"
    )
    mean_tokens: tuple[str, ...] = Field(
        default=(), description="leaves of which tiles tell more by the mean of their tokens than each by its own"
    )
    specialists: tuple[str, ...] = Field(
        default=(), description="leaves with a refiner of their own, for pictures that have nothing else"
    )
    certain: dict[str, Annotated[float, Field(gt=0, lt=1)]] = Field(
        default={}, description="belief above which a leaf's specialist is asked, by leaf; 0.5 of others"
    )
    variance: dict[str, float] = Field(
        default=VARIANCE,
        description="share of a restoration's mean squared error that differs from view to view, by leaf; 0.1 of others",
    )

    @field_validator("tree")
    @classmethod
    def _whole(cls, tree: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        names = [*tree, *(leaf for leaves in tree.values() for leaf in leaves)]
        if not tree or not all(tree.values()) or len(set(names)) < len(names):
            raise ValueError("a tree needs different names, and leaves under every parent")
        return tree

    @cached_property
    def leaves(self) -> tuple[str, ...]:
        return tuple(leaf for leaves in self.tree.values() for leaf in leaves)

    @cached_property
    def experts(self) -> tuple[str, ...]:
        """Parents, then leaves: the order of the stacked ranks."""
        return (*self.tree, *self.leaves)

    def least_likely(self, leaf: str) -> float:
        """Logit above which a look is believed of a leaf."""
        return self.likely.get(leaf, LIKELY)


def sigmoid(x: float) -> float:
    """Logistic function, without overflow; 0 for NaN: what a broken assessment says is not believed."""
    if math.isnan(x):
        return 0.0
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))


def believed(routing: Routing, logits: Sequence[float]) -> dict[str, float]:
    """Belief in every leaf, in [0, 1], from degradation logits (one a leaf)."""
    return {leaf: sigmoid(float(z)) for leaf, z in zip(routing.leaves, logits, strict=True)}


def route(routing: Routing, granularity: float, logits: Sequence[float]) -> Gates:
    """Gates of every expert in [0, 1], from an assessment's granularity and degradation logits (one a leaf)."""
    confidence = sigmoid((routing.threshold - granularity) / routing.softness)
    belief = believed(routing, logits)
    gates = {parent: (1 - confidence) * max(belief[leaf] for leaf in leaves) for parent, leaves in routing.tree.items()}
    gates |= {leaf: confidence * p for leaf, p in belief.items()}
    # Ties go to the expert that comes first, so that every language keeps the same ones.
    kept = sorted(gates, key=lambda name: -gates[name])[: routing.top]
    return {name: gate if name in kept else 0.0 for name, gate in gates.items()}


def agreed_logits(routing: Routing, looks: Sequence[Sequence[float]], tile: Sequence[float]) -> tuple[float, ...]:
    """A tile's degradation logits: of the leaves in `routing.whole` its look's, if it says anything, and −∞ where that is not
    likely. Of those in `routing.uneven` the larger of both, and where the look's is not likely their sum, as of independent
    evidence, or −∞ where that is not above `LIKELY`: a gate that is half open does harm.

    `looks`: all up to the one that the tile goes by, the last; none for a picture of one tile. What the first one found
    unlikely no later one finds, but for leaves in `routing.uneven`: restoring adds no degradation.
    """
    if not looks:
        return tuple(tile)

    def agreed(leaf: str, at_first: float, of_look: float, of_tile: float) -> float:
        if leaf not in routing.whole or math.isnan(of_look):
            return of_tile
        likely = of_look > routing.least_likely(leaf)
        if leaf not in routing.uneven or math.isnan(of_tile):
            return of_look if likely and not at_first <= 0 else -math.inf
        if likely:
            return max(of_look, of_tile)
        return of_look + of_tile if of_look + of_tile > LIKELY else -math.inf

    return tuple(agreed(*row) for row in zip(routing.leaves, looks[0], looks[-1], tile, strict=True))


def token_source(routing: Routing, look: Sequence[float]) -> TokenSource:
    """Whose tokens tiles take after a first look with these degradation logits: the look's where it finds a leaf in
    `routing.look_tokens` likely, else the mean of all tiles' where one in `routing.mean_tokens` is likelier than not, else each
    its own.
    """

    told = dict(zip(routing.leaves, look, strict=True))
    if any(told[leaf] > routing.least_likely(leaf) for leaf in routing.leaves if leaf in routing.look_tokens):
        return TokenSource.LOOK
    likelier = any(told[leaf] > 0 for leaf in routing.leaves if leaf in routing.mean_tokens)
    return TokenSource.MEAN if likelier else TokenSource.OWN


def refiner(routing: Routing, beliefs: Mapping[str, float]) -> str:
    """The method that refines a tile: the specialist's of the likeliest leaf where no other is believed above 0.5, else refine.

    `beliefs`: in leaves of a view of the picture as it came, or the weights of them that a caller stated. A specialist is
    asked above a belief of 0.5, or what `routing.certain` says of its leaf; of equal beliefs the first is the likeliest.
    """
    likeliest = max(routing.leaves, key=beliefs.__getitem__)
    alone = sum(beliefs[leaf] > 0.5 for leaf in routing.leaves) <= 1
    asked = likeliest in routing.specialists and beliefs[likeliest] > routing.certain.get(likeliest, 0.5)
    return specialist_method(likeliest) if alone and asked else REFINE


def prospect(routing: Routing, degradations: Mapping[str, float], gates: Gates) -> Prospect:
    """From beliefs in leaves and every expert's gate, which a caller may have stated: a leaf is believed as far as the larger
    of both. A picture stays upright where a leaf in `routing.whole`, which light from above gives away, is believed above 0.5;
    its variance is the mean of its leaves', weighted by belief.
    """
    beliefs = {leaf: max(degradations[leaf], gates[leaf]) for leaf in routing.leaves}
    total = sum(beliefs.values())
    variances = {leaf: routing.variance.get(leaf, UNKNOWN_VARIANCE) for leaf in routing.leaves}
    return Prospect(
        belief=max((*beliefs.values(), *gates.values()), default=0.0),
        variance=sum(beliefs[leaf] * variances[leaf] for leaf in routing.leaves) / total if total > 0 else 0.0,
        upright=any(beliefs[leaf] > 0.5 for leaf in routing.leaves if leaf in routing.whole),
    )


def given_gates(routing: Routing, degradations: Mapping[str, Any]) -> Gates:
    """Gates a caller states himself: expert name → weight in [0, 1]; the others are 0. Raises InputError."""
    for name, weight in degradations.items():
        if name not in routing.experts:
            raise InputError(f"unknown degradation {name!r}; expected one of {', '.join(routing.experts)}")
        if not isinstance(weight, int | float) or not 0 <= weight <= 1:
            raise InputError(f"weight of {name} is {weight!r}; expected a number in [0, 1]")
    return {name: float(degradations.get(name, 0.0)) for name in routing.experts}


def gate_tensor(routing: Routing, gates: Gates, rank: int) -> NDArray[np.float32]:
    """(1, E·rank, 1, 1): every expert's gate repeated over its rank."""
    weights = np.fromiter(map(gates.__getitem__, routing.experts), np.float32, len(routing.experts))
    return np.repeat(weights, rank).reshape(1, -1, 1, 1)
