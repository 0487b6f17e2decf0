"""The restorer: a loaded program, ready to restore pictures of any size within a budget."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from typing_extensions import TypedDict, Unpack

from . import backends
from .backends import Encoded, Session
from .bundle import Bundle, Program
from .controller import Policy
from .cost import CostModel, Estimate
from .errors import InputError
from .methods import REFINE, refiners
from .pictures import Picture, from_array, read
from .probe import pick
from .restoration import Restoration, Update
from .routing import gate_tensor, given_gates
from .run import Engine, Run
from .speed import iteration_ms
from .stream import Stream, in_thread

FEATURE_MEMORY_MB = 192
Image = NDArray[Any] | Picture | str | Path


class Options(TypedDict, total=False):
    """What a restoration may be asked for; see `Restorer.restore`."""

    budget_ms: float | None
    min_quality: float | None
    max_iterations: int
    min_iterations: int
    min_gain: float
    rollback: bool
    degradations: Mapping[str, float] | None
    keep_steps: bool
    cancel: threading.Event | None


class Restorer:
    """A loaded program of a bundle. Any number of threads may use one: its steps run one after the other."""

    def __init__(
        self,
        bundle: Bundle,
        program: Program,
        backend: str,
        session: Session,
        feature_memory_mb: float = FEATURE_MEMORY_MB,
    ) -> None:
        manifest = bundle.manifest
        self.bundle, self.program, self.backend = bundle, program, backend
        self.chosen_because = f"{backend} was asked for"
        # An upper limit of what an encode gives out: a tile in, everything else out.
        bytes_a_tile = program.boundary_bytes.get("encode", 64 * manifest.tile**2)
        self._engine = Engine(
            session=session,
            program=program.name,
            backend=backend,
            tile=manifest.tile,
            rank=manifest.student.rank,
            routing=manifest.routing,
            calibration=program.calibration,
            keep=max(1, int(feature_memory_mb * 2**20 / bytes_a_tile)),
            cost=_seed(bundle, program),
        )

    @classmethod
    def load(
        cls,
        bundle: str | Path | None = None,
        *,
        backend: str = "auto",
        program: str | None = None,
        threads: int | None = None,
        warm_up: bool = True,
        feature_memory_mb: float = FEATURE_MEMORY_MB,
        experts: str | None = None,
    ) -> Restorer:
        """Load a bundle, or the embedded one of a size ("nano"; None: "small"), and a program of it that this machine runs.

        `backend` "auto" takes the one that was measured to be fastest here, see `chosen_because`; it is measured once and
        remembered. `warm_up` runs all methods a few times so that the first budget is kept from a measured cost.
        `feature_memory_mb` bounds the features of large pictures' tiles; what is beyond it is encoded again. `experts` names
        a pack of the bundle to use instead of the program's own. Raises BundleError for a damaged bundle, BackendError when
        nothing here can run it, InputError for an option that cannot be used.
        """
        opened = Bundle.open(bundle)
        if threads is not None and not _is_count(threads):
            raise InputError(f"threads={threads!r}: expected a number, 0 or None for the backend's choice")
        if not _is_count(feature_memory_mb):
            raise InputError(f"feature_memory_mb={feature_memory_mb!r}: expected megabytes, 0 or more")
        if experts is not None and program is None:
            program = next(iter(opened.expert_pack(experts).programs), None)
        name, chosen, reason = pick(opened, backend, program, threads)
        session = backends.load(opened, name, chosen, threads, experts)
        restorer = cls(opened, chosen, name, session, feature_memory_mb)
        restorer.chosen_because = reason
        if warm_up:
            restorer.warm_up()
        return restorer

    def warm_up(self, repetitions: int = 3) -> None:
        """Run all methods, so that caches are warm and costs are known. Raises BackendError, BundleError."""
        engine = self._engine
        blank = np.full((1, 3, engine.tile, engine.tile), 0.5, np.float32)
        gates = gate_tensor(engine.routing, given_gates(engine.routing, {}), engine.rank)

        def nothing(_: float) -> None: ...

        def refine(encoded: Encoded, method: str, took: Callable[[float], None]) -> None:
            engine.call(lambda: engine.session.refine(blank, encoded, encoded, gates, method), None, took)

        for repetition in range(repetitions + 1):  # the first allocates and says nothing of the cost
            took = (engine.encode_took, engine.refine_took) if repetition else (nothing, nothing)
            encoded = engine.call(lambda: engine.encode(blank), None, took[0])
            for method in (REFINE,) if repetition else refiners(engine.routing.specialists):
                refine(encoded, method, took[1])

    def restore(
        self, image: Image, *, progress: Callable[[Update], None] | None = None, **options: Unpack[Options]
    ) -> Restoration:
        """Restore a picture: uint8 or uint16 H×W×3 (or grey, or with alpha), a `Picture`, or a file's path.

        The call returns within `budget_ms` (reading a file does not count): when no iteration fits, the answer is the picture
        itself and `reason` is "budget". `min_quality` in [0, 1] stops early. `max_iterations` (4) is of every tile, so is
        `min_iterations` (0), which is done whatever the budget says. An iteration that is expected to gain no more than
        `min_gain` (0.001, which is 0.04 dB) is not begun. `rollback` (True): stop at a predicted loss of 2 dB and return the
        picture before it. `degradations` sets the experts' gates by hand: name → weight in [0, 1]. `keep_steps`: keep the
        picture after every round. `cancel`: an event that another thread may set, for one restoration or many. `progress` is
        called after every refine. Raises InputError for a picture or an option that cannot be used.
        """
        if progress is not None and not callable(progress):
            raise InputError(f"progress={progress!r}: expected a function that takes an Update")
        stream = self.stream(image, **options)
        for update in stream:
            if progress is not None:
                progress(update)
        return stream.result

    def stream(self, image: Image, **options: Unpack[Options]) -> Stream:
        """Like `restore`, but to be iterated over, also with `async for`: the picture after every refine; then `.result`.

        A file is read before the call returns.
        """
        return self._begin(image, time.perf_counter(), threading.Event(), options)

    async def restore_async(self, image: Image, **options: Unpack[Options]) -> Restoration:
        """`restore` in another thread; cancelling the task ends it after the step that is running."""
        import asyncio

        asked, cancelled = time.perf_counter(), threading.Event()

        def work() -> Restoration:
            stream = self._begin(image, asked, cancelled, options)
            for _ in stream:
                pass
            return stream.result

        try:
            return await in_thread(work)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    def _begin(self, image: Image, asked: float, cancelled: threading.Event, options: Options) -> Stream:
        """A stream whose budget began when it was `asked` for, less the reading of a file. `cancelled` is its own event."""
        before = time.perf_counter()
        if isinstance(image, str | Path):
            image = read(Path(image))
        began = asked + (time.perf_counter() - before)
        wanted: dict[str, Any] = dict(options)
        degradations: object = wanted.pop("degradations", None)
        keep_steps: bool = wanted.pop("keep_steps", False)
        given: object = wanted.pop("cancel", None)
        try:
            policy = Policy(**wanted)
        except ValidationError as error:
            first = error.errors()[0]
            raise InputError(f"{first['loc'][0]}={first['input']!r}: {first['msg']}") from None
        if given is not None and not isinstance(given, threading.Event):
            raise InputError(f"cancel={given!r}: expected a threading.Event")
        if degradations is not None and not isinstance(degradations, Mapping):
            raise InputError(f"degradations={degradations!r}: expected a weight by name, such as {{'rain': 0.7}}")
        fixed = None if degradations is None else given_gates(self._engine.routing, degradations)
        picture = image if isinstance(image, Picture) else from_array(image)

        # A caller may share his event among many restorations: it is asked, never set.
        def ends() -> bool:
            return cancelled.is_set() or (given is not None and given.is_set())

        return Stream(Run(self._engine, picture, policy, fixed, keep_steps, ends, began), cancelled)


def _is_count(given: object) -> bool:
    """Whether it is a number, 0 or more."""
    return isinstance(given, int | float) and given >= 0


def _seed(bundle: Bundle, program: Program) -> CostModel:
    """What the bundle's profiles say of the program's cost: a start that the first steps correct.

    Of several classes of devices the slowest: which of them this one is like is not known, and a deadline is to hold.
    """
    measured = [profile for profile in bundle.manifest.profiles if profile.program == program.name]
    if not measured:
        return CostModel()
    slowest = max(measured, key=iteration_ms)
    return CostModel(Estimate(*slowest.encode_ms), Estimate(*slowest.refine_ms))
