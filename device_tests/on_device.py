"""Programs of a bundle on a device as candidates of a validation: the whole loop runs there, picture by picture."""

from __future__ import annotations

from ..runtime.bundle import Bundle
from ..runtime.controller import Policy
from ..runtime.errors import DeviceError
from ..runtime.tiles import plan_tiles
from .bench import Bench
from .devices import open_device
from .job import Job, Restore
from .metrics import from_pixels, to_pixels
from .protocol import Array
from .runners import runner_for
from .trajectory import Trajectory, said

LIMIT_S = 900


class DevicePrograms:
    """What of a bundle runs on a device; nothing stays there after `close`."""

    def __init__(self, bundle: Bundle, spec: str) -> None:
        """Raises DeviceError."""
        self.spec = spec
        self._bundle, self._device = bundle, open_device(spec)
        try:
            self._bench = Bench(self._device, bundle).__enter__()
        except BaseException:
            self._device.close()
            raise

    def runnable(self, names: list[str]) -> list[str]:
        """Those of the named programs that the device runs. Raises DeviceError when it runs none."""
        found: list[str] = []
        for name in names:
            try:
                runner_for(self._device, self._bench.identity, self._bundle.program(name))
                found.append(name)
            except DeviceError:
                continue
        if not found:
            raise DeviceError(f"{self.spec}: nothing there runs {', '.join(names)}; choose others with --program")
        return found

    def run(self, name: str, picture: Array, iterations: int) -> Trajectory:
        """What the program makes of a picture, as `trajectory.run_restorer` does here. Raises DeviceError."""
        program = self._bundle.program(name)
        policy = Policy(max_iterations=iterations, min_iterations=iterations, rollback=False)
        task = Restore.by(self._bundle, program, policy, keep_steps=True)
        job = Job(program="", limit_s=LIMIT_S, restore=task)
        outcome = self._bench.run(program, job, pictures={"picture": to_pixels(picture)})
        (row,) = outcome.result.restorations
        if len(row.steps) != iterations + 1 or any(event.broken for event in row.trace):
            raise DeviceError(f"{self.spec}: {name} gave a broken picture and stopped: {row.reason}")
        plan = plan_tiles(picture.shape[0], picture.shape[1], self._bundle.manifest.tile)
        return Trajectory(
            tuple(from_pixels(outcome.pictures[f"picture.{i}"]) for i in range(1, iterations + 1)),
            plan,
            said(row.trace, len(plan), iterations),
            tuple(step.gates for step in row.steps[1:]),
        )

    def close(self) -> None:
        """Remove what is there and let go of the device. Raises DeviceError when it is gone."""
        try:
            self._bench.__exit__(None, None, None)
        finally:
            self._device.close()
