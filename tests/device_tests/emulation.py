"""Devices to test with where there are none: a phone of emulated Arm behind a real adbd, and a real sshd on loopback."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from burnish.device_tests.devices.arm import SYSROOT, qemu_version
from burnish.device_tests.toolchain import cache_folder
from burnish.runtime.errors import DeviceError

SERIAL = "127.0.0.1:5555"
ADBD = Path("/usr/lib/android-sdk/platform-tools/adbd")
# `.ci/devices` unpacks Debian's arm64 packages there.
ARM_ROOT = cache_folder() / "arm64"
BUSYBOX = ARM_ROOT / "bin" / "busybox"
STARTED_S = 60.0


def need_arm() -> None:
    """Skip where emulated Arm cannot run."""
    try:
        qemu_version()
    except DeviceError as error:
        pytest.skip(str(error))
    if not (Path(SYSROOT) / "lib" / "libstdc++.so.6").exists():
        pytest.skip(f"no arm64 libraries in {SYSROOT}; .ci/devices installs them")


def need_namespaces() -> None:
    """Skip where an unprivileged user may not make namespaces with a binfmt_misc of their own."""
    probe = "mount --make-rprivate / && mount -t binfmt_misc none /proc/sys/fs/binfmt_misc"
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "--net"]
    done = subprocess.run([*unshare, "sh", "-c", probe], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(
            f"no user namespace with a binfmt_misc of its own here ({done.stderr.strip()[:100]}); Linux 6.7 has it"
        )


class Phone:
    """A phone of emulated Arm; `serial` is how adb knows it."""

    serial = SERIAL

    def __init__(self, root: Path, adb: str, process: subprocess.Popen[bytes]) -> None:
        self._root, self._adb, self._process = root, adb, process

    def shell(self, command: str) -> str:
        """A command's output."""
        return self._call("-s", SERIAL, "shell", "-n", "-T", command).stdout

    def unplug(self) -> None:
        """End adbd as a pulled cable would; phone.sh starts it again when it is plugged in."""
        (self._root.parent / "root.unplugged").touch()
        adbd = int(self.shell("pidof adbd").split()[0])
        self._call("-s", SERIAL, "shell", "-n", "-T", f"kill -9 {adbd}")

    def plug(self) -> None:
        """Connect, and wait until it answers."""
        (self._root.parent / "root.unplugged").unlink(missing_ok=True)
        deadline = time.monotonic() + STARTED_S
        while time.monotonic() < deadline:
            self._call("connect", SERIAL)
            if self.shell("echo here").strip() == "here":
                return
            if self._process.poll() is not None:
                break
            time.sleep(0.3)
        logs = "".join(path.read_text() for path in self._root.parent.glob("root*.log"))
        raise RuntimeError(f"the emulated phone did not start: {logs[-800:]}")

    def leftovers(self) -> list[str]:
        """Files and processes of burnish on it."""
        files = self.shell("ls /data/local/tmp").split()
        return [name for name in files if name.startswith("burnish-")] + self.shell("pidof burnish-runner").split()

    def _call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([self._adb, *arguments], capture_output=True, text=True, timeout=60)


@contextmanager
def running_phone(
    folder: Path, properties: dict[str, str], core: str = "cortex-a76", size: str = "64m"
) -> Iterator[Phone]:
    """A phone, and ADB_SERVER_SOCKET set so that adb finds it; skips where something is missing."""
    need_arm()
    need_namespaces()
    if not ADBD.exists():
        pytest.skip("no adbd; apt install -t bookworm-backports adbd")
    if not BUSYBOX.is_file():
        pytest.skip(f"no arm64 busybox in {ARM_ROOT}; .ci/devices unpacks it")
    from burnish.device_tests.devices.adb import adb_path

    root, server = folder / "root", folder / "adb.sock"
    root.mkdir()
    (folder / "root.properties").write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
    script = Path(__file__).with_name("phone.sh")
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "--net", "--pid", "--fork", "--kill-child"]
    inside = ["sh", str(script), str(root), str(server), adb_path(), str(BUSYBOX), SYSROOT, core, size]
    before = os.environ.get("ADB_SERVER_SOCKET")
    os.environ["ADB_SERVER_SOCKET"] = f"localfilesystem:{server}"
    process = subprocess.Popen(
        [*unshare, *inside],
        stdin=subprocess.PIPE,
        stdout=(folder / "root.phone.log").open("w"),
        stderr=subprocess.STDOUT,
    )
    try:
        phone = Phone(root, adb_path(), process)
        deadline = time.monotonic() + STARTED_S
        while not server.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        phone.plug()
        yield phone
    finally:
        process.kill()
        process.wait()
        if before is None:
            del os.environ["ADB_SERVER_SOCKET"]
        else:
            os.environ["ADB_SERVER_SOCKET"] = before


class Sshd:
    """An ssh daemon of one key and one user on loopback. `address`: USER@HOST:PORT."""

    def __init__(self, address: str, process: subprocess.Popen[bytes]) -> None:
        self.address, self._process = address, process

    def unplug(self) -> None:
        """End the daemon; its connections go with it."""
        children = subprocess.run(
            ["pgrep", "-P", str(self._process.pid)], capture_output=True, text=True
        ).stdout.split()
        for child in children:
            subprocess.run(["pkill", "-9", "-P", child])
            subprocess.run(["kill", "-9", child])
        self._process.kill()


@contextmanager
def running_sshd(folder: Path) -> Iterator[Sshd]:
    """A daemon, and a HOME whose .ssh knows it; skips where sshd is missing."""
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    keygen = shutil.which("ssh-keygen")
    if sshd is None or keygen is None:
        pytest.skip("no sshd; apt install openssh-server")
    home = folder / "home"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    host_key, user_key = folder / "host_key", home / ".ssh" / "id_ed25519"
    for key in (host_key, user_key):
        subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    public = " ".join(host_key.with_suffix(".pub").read_text().split()[:2])
    (home / ".ssh" / "known_hosts").write_text(f"[127.0.0.1]:{port} {public}\n")
    (folder / "authorized").write_text(user_key.with_suffix(".pub").read_text())
    Path("/run/sshd").mkdir(exist_ok=True)
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    (folder / "config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {host_key}\nPidFile none\nAuthorizedKeysFile {folder}/authorized\n"
        f"PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nStrictModes no\nPermitRootLogin yes\n"
        f"Subsystem sftp internal-sftp\nSetEnv PATH={path} HOME={home} OMP_NUM_THREADS=1\n"
    )
    before = os.environ.get("HOME")
    os.environ["HOME"] = str(home)
    process = subprocess.Popen([sshd, "-D", "-e", "-f", str(folder / "config")], stderr=(folder / "log").open("w"))
    try:
        deadline = time.monotonic() + STARTED_S
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
        yield Sshd(f"{user}@127.0.0.1:{port}", process)
    finally:
        process.kill()
        process.wait()
        os.environ["HOME"] = before or "/"
