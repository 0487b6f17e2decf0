"""Swift where there is one: the system's own (macOS), or Debian's in the folder that .ci/ios makes."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "ios_demo"
ROOT = Path(os.environ.get("BURNISH_SWIFT", "/var/tmp/burnish/swift"))
# Inside of ROOT: the packages keep commands apart from what Debian puts on the path.
COMMANDS = "/usr/libexec/swift/bin:/usr/sbin:/usr/bin:/bin"
# A mount namespace of its own: nothing stays mounted, whatever happens.
ENTER = """
set -e
root=$1; shift
mount -t proc proc "$root/proc"
while [ "$1" != -- ]; do mkdir -p "$root$1"; mount --bind "$1" "$root$1"; shift; done
shift
exec env -i HOME=/tmp PATH="$PATH_INSIDE" ${BURNISH_CONFORMANCE:+"BURNISH_CONFORMANCE=$BURNISH_CONFORMANCE"} chroot "$root" "$@"
"""
TIMEOUT_S = 900


def available() -> bool:
    """Whether Swift can be run: on the path, or in ROOT, which takes root."""
    return bool(shutil.which("swift")) or (os.geteuid() == 0 and (ROOT / "usr/libexec/swift/bin/swift").is_file())


needs_swift = pytest.mark.skipif(not available(), reason="no Swift here; .ci/ios installs it (as root, on Debian)")


def run(arguments: Sequence[str | Path], *, see: Sequence[Path] = (), conformance: Path | None = None) -> str:
    """Output and errors of a command of the toolchain that succeeds. `see`: folders it reads and writes besides ours."""
    done = call(arguments, see=see, conformance=conformance)
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout


def call(
    arguments: Sequence[str | Path], *, see: Sequence[Path] = (), conformance: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """A command of the toolchain, whatever it says."""
    command = [str(argument) for argument in arguments]
    variables = {"BURNISH_CONFORMANCE": str(conformance)} if conformance else {}
    if shutil.which("swift"):
        environment = os.environ | variables
    else:
        (ROOT / "proc").mkdir(exist_ok=True)
        folders = [str(folder.resolve()) for folder in (REPOSITORY, *see)]
        command = [*("unshare", "--mount", "sh", "-c", ENTER, "sh", str(ROOT)), *folders, "--", *command]
        environment = os.environ | {"PATH_INSIDE": COMMANDS} | variables
    return subprocess.run(
        command,
        cwd=PACKAGE,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
    )


def options() -> list[str]:
    """What `swift build` and `swift test` need to work on our package; Debian's builds outside of the repository."""
    scratch = [] if shutil.which("swift") else ["--scratch-path", "/build/ios", "--disable-sandbox"]
    return ["--package-path", str(PACKAGE), *scratch]


def sources() -> list[Path]:
    """Every Swift file of the demo, Apple-only ones included."""
    return sorted(path for path in PACKAGE.rglob("*.swift") if ".build" not in path.parts)
