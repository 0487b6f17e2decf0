"""Builds the C++ runner for a device's platform, once, into a cache."""

from __future__ import annotations

import hashlib
import os
import platform as this
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import as_file, files
from importlib.util import find_spec
from pathlib import Path

from ..runtime.errors import BackendError
from ..runtime.files import replace_folder

BINARY = "burnish-runner"
LIBRARIES = ("executorch", "executorch_backend_xnnpack", "executorch_threadpool", "executorch_etdump")
# Platform → compiler where it is not this machine's own.
CROSS = {"linux-aarch64": "aarch64-linux-gnu-g++", "linux-x86_64": "x86_64-linux-gnu-g++"}
ANDROID = "BURNISH_ANDROID_RUNNER"
BUILD_S = 900.0


def runner_files(platform: str) -> list[Path]:
    """The runner and the libraries beside it for a platform such as linux-aarch64; built unless the cache has them.

    Raises BackendError naming what to install.
    """
    if platform.startswith("android-"):
        return _android(platform)
    if platform not in CROSS:
        raise BackendError(f"no runner for {platform}; expected {', '.join((*CROSS, 'android-arm64'))}")
    with as_file(files("burnish.device_tests").joinpath("runner")) as sources:
        folder = cache_folder() / "runner" / f"{platform}-{_digest(Path(sources))}"
        if not (folder / BINARY).is_file():
            replace_folder(folder, BINARY, lambda beside: _build(Path(sources), platform, beside))
    return [folder / BINARY, *(folder / f"lib{name}.so" for name in LIBRARIES)]


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/burnish."""
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "burnish"


def _build(sources: Path, platform: str, out: Path) -> None:
    native = platform == f"linux-{this.machine()}"
    compiler = "c++" if native else CROSS[platform]
    if shutil.which(compiler) is None:
        package = "g++" if native else f"g++-{platform.removeprefix('linux-').replace('_', '-')}-linux-gnu"
        raise BackendError(f"no {compiler} to build the runner for {platform}; apt install {package}")
    sdk = _installed_sdk() if native else _foreign_sdk(platform)
    with tempfile.TemporaryDirectory() as build:
        configure = [
            _cmake(),
            *("-S", str(sources), "-B", build, "-DCMAKE_BUILD_TYPE=Release"),
            f"-Dexecutorch_DIR={sdk / 'share' / 'cmake'}",
            f"-DNLOHMANN_INCLUDE={_headers('nlohmann_json', 'nlohmann-json') / 'include'}",
            f"-DCMAKE_CXX_COMPILER={compiler}",
        ]
        if not native:
            configure += ["-DCMAKE_SYSTEM_NAME=Linux", f"-DCMAKE_SYSTEM_PROCESSOR={platform.removeprefix('linux-')}"]
        _call(configure)
        _call([_cmake(), "--build", build, "--parallel"])
        shutil.copy(Path(build) / BINARY, out / BINARY)
    for name in LIBRARIES:
        shutil.copy(sdk / "lib" / f"lib{name}.so", out)


def _digest(sources: Path) -> str:
    """Of everything a build depends on."""
    total = hashlib.sha256(_executorch().encode())
    for source in sorted(sources.glob("*")):
        if source.is_file():
            total.update(source.name.encode() + b"\0" + source.read_bytes())
    return total.hexdigest()[:12]


def _executorch() -> str:
    try:
        return version("executorch")
    except PackageNotFoundError:
        raise BackendError("the runner is built on ExecuTorch's wheel; pip install 'burnish[export]'") from None


def _installed_sdk() -> Path:
    _executorch()
    return _headers("executorch", "executorch")


def _headers(package: str, wheel: str) -> Path:
    """Folder of an installed package, without importing it. Raises BackendError."""
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise BackendError(f"the runner needs {wheel} to build; pip install 'burnish[export,devices]'")
    return Path(next(iter(found.submodule_search_locations)))


def _cmake() -> str:
    """CMake 3.28 or later, which the wheel of the same name brings."""
    try:
        from cmake import CMAKE_BIN_DIR
    except ImportError:
        raise BackendError("the runner needs cmake to build; pip install 'burnish[devices]'") from None
    return str(Path(CMAKE_BIN_DIR) / "cmake")


def _foreign_sdk(platform: str) -> Path:
    """The package folder of the ExecuTorch wheel for another processor, from the package registry."""
    folder = cache_folder() / "sdk" / f"executorch-{_executorch()}-{platform}"
    if not folder.is_dir():
        replace_folder(folder, "share", lambda beside: _fetch_sdk(platform.removeprefix("linux-"), beside))
    return folder


def _fetch_sdk(machine: str, out: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        wanted = [
            f"executorch=={_executorch().partition('+')[0]}",
            "--no-deps",
            "--only-binary=:all:",
            "--dest",
            scratch,
        ]
        tags = [f"--platform=manylinux_2_28_{machine}", f"--python-version={sys.version_info[0]}.{sys.version_info[1]}"]
        _call([sys.executable, "-m", "pip", "download", "--quiet", *wanted, *tags])
        with zipfile.ZipFile(next(Path(scratch).glob("*.whl"))) as wheel:
            for name in wheel.namelist():
                if (
                    name.startswith(("executorch/include/", "executorch/lib/", "executorch/share/"))
                    and ".." not in name
                ):
                    wheel.extract(name, scratch)
        for part in ("include", "lib", "share"):
            shutil.move(Path(scratch) / "executorch" / part, out / part)


def _android(platform: str) -> list[Path]:
    folder = os.environ.get(ANDROID)
    if folder is None or not (Path(folder) / BINARY).is_file():
        raise BackendError(
            f"no runner for {platform}: build it by device_tests/runner/build-android, then set "
            f"{ANDROID} to the folder it wrote"
        )
    return [Path(folder) / BINARY]


def _call(arguments: list[str]) -> None:
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, errors="replace", timeout=BUILD_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BackendError(f"building the runner failed: {error}") from None
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        told = next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "no reason given")
        raise BackendError(f"building the runner failed: {Path(arguments[0]).name}: {told.strip()[:300]}")
