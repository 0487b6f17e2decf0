"""The degradation tree: leaves a picture can suffer from, under coarser parents."""

from __future__ import annotations

TREE: dict[str, tuple[str, ...]] = {
    "weather": ("rain", "snow", "haze"),
    "exposure": ("low_light", "noise"),
    "detail": ("blur", "jpeg"),
}
PARENTS: tuple[str, ...] = tuple(TREE)
LEAVES: tuple[str, ...] = tuple(leaf for leaves in TREE.values() for leaf in leaves)
