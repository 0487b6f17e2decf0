"""A program's methods: `encode`, `refine`, and `refine_LEAF` of every leaf that has a specialist."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

from .errors import BackendError

T = TypeVar("T")

ENCODE, REFINE = "encode", "refine"

ENCODE_INPUTS = ("image",)
ENCODE_OUTPUTS = ("feature1", "feature2", "feature3", "tokens", "assessment")
REFINE_INPUTS = ("current", "original1", "original2", "original3", "estimate2", "estimate3", "tokens", "gates")
REFINE_OUTPUTS = ("restored", "quality")


def specialist_method(leaf: str) -> str:
    """The method of a leaf's specialist, which takes and gives what `refine` does."""
    return f"{REFINE}_{leaf}"


def refiners(specialists: Iterable[str]) -> tuple[str, ...]:
    """The methods that refine: `refine`, and those of the leaves that have a specialist, in their order."""
    return (REFINE, *map(specialist_method, specialists))


def contract(method: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of a method's inputs and outputs, in order."""
    return (ENCODE_INPUTS, ENCODE_OUTPUTS) if method == ENCODE else (REFINE_INPUTS, REFINE_OUTPUTS)


class Methods(dict[str, T]):
    """A loaded program's methods by name; asking for one that it lacks raises BackendError."""

    _later: Mapping[str, Callable[[], T]] = {}

    @classmethod
    def by_need(cls, names: Collection[str], load: Callable[[str], T]) -> Methods[T]:
        """Encode and refine, loaded, and specialists, which load when they are first asked for: few pictures need them all."""
        methods = cls((name, load(name)) for name in (ENCODE, REFINE) if name in names)
        methods._later = {name: partial(load, name) for name in names if name not in methods}
        return methods

    def __missing__(self, name: str) -> T:
        if name not in self._later:
            raise BackendError(
                f"the program has no method {name}, which the bundle's routing names; export the bundle again"
            )
        self[name] = self._later[name]()
        return self[name]


def methods_in(folder: Path, suffix: str) -> tuple[str, ...]:
    """The methods of a program that has a file or package for each: encode, refine, and the specialists found."""
    specialists = sorted(path.name.removesuffix(suffix) for path in folder.glob(f"{specialist_method('*')}{suffix}"))
    return (ENCODE, REFINE, *specialists)
