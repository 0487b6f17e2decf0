"""Devices that several tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from burnish.device_tests.toolchain import cache_folder, runner_files
from burnish.runtime.bundle import EMBEDDED, Bundle
from burnish.runtime.errors import BackendError
from emulation import Phone, Sshd, need_arm, running_phone, running_sshd

# What a phone may say of itself: nothing of it may reach a shell, a terminal's controls, or a page's markup.
HOSTILE = "$(touch /data/local/tmp/owned) `reboot`; \x1b[31m<script>alert(1)</script> [red]"


# Before tests get a cache of their own: compilers take a minute for what is kept there.
BUILT = cache_folder()


@pytest.fixture(scope="session", autouse=True)
def _built_before(_own_cache: None) -> None:
    """Runners and the foreign SDK are taken from, and kept in, the user's own cache."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    for part in ("runner", "sdk"):
        (BUILT / part).mkdir(parents=True, exist_ok=True)
        (cache_folder() / part).symlink_to(BUILT / part)


@pytest.fixture(scope="session")
def embedded() -> Bundle:
    return Bundle.open(EMBEDDED)


@pytest.fixture(scope="session")
def native_runner() -> Path:
    """The runner for this machine; skips where it cannot be built."""
    try:
        return runner_files("linux-x86_64")[0]
    except BackendError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def arm_runner() -> Path:
    """The runner for Arm; skips where it cannot be built or run."""
    need_arm()
    try:
        return runner_files("linux-aarch64")[0]
    except BackendError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phone]:
    properties = {"ro.product.manufacturer": "Test", "ro.product.model": HOSTILE, "ro.soc.model": "Emulated A76"}
    with running_phone(tmp_path_factory.mktemp("phone"), properties) as running:
        yield running


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running_sshd(tmp_path_factory.mktemp("sshd")) as running:
        yield running
