"""Power of a Jetson's rails while something runs, from its INA3221 sensors."""

from __future__ import annotations

import threading
from pathlib import Path

HWMON = Path("/sys/class/hwmon")
INTERVAL_S = 0.05


class Rails:
    """Samples every rail in a thread between `start` and `stop`; there are none on most machines."""

    def __init__(self, root: Path = HWMON) -> None:
        self._rails = find_rails(root)
        self._sums = dict.fromkeys(self._rails, 0.0)
        self._count = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def start(self) -> None:
        """Begin to sample."""
        if self._rails:
            self._thread.start()

    def stop(self) -> dict[str, float]:
        """Mean milliwatts of each rail since the start."""
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()
        return {name: total / self._count for name, total in self._sums.items()} if self._count else {}

    def _sample(self) -> None:
        while not self._done.wait(INTERVAL_S):
            try:
                now = {name: _read(volts) * _read(amperes) / 1e3 for name, (volts, amperes) in self._rails.items()}
            except (OSError, ValueError):
                continue  # a sensor that is busy answers next time
            for name, power in now.items():
                self._sums[name] += power
            self._count += 1


def find_rails(root: Path) -> dict[str, tuple[Path, Path]]:
    """Files with millivolts and milliamperes of each rail, by its label such as VDD_IN."""
    rails: dict[str, tuple[Path, Path]] = {}
    for sensor in sorted(root.glob("hwmon*")):
        try:
            if (sensor / "name").read_text().strip() != "ina3221":
                continue
            for label in sorted(sensor.glob("in*_label")):
                number = label.name.removeprefix("in").removesuffix("_label")
                files = (sensor / f"in{number}_input", sensor / f"curr{number}_input")
                if all(file.is_file() for file in files):
                    rails[label.read_text().strip()] = files
        except OSError:
            continue  # a sensor of another kind
    return rails


def _read(path: Path) -> float:
    return float(path.read_text())
