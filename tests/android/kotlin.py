"""The Kotlin of android_demo on this machine: the npm compiler and the JVM, which `.ci/android` installs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "android_demo"
HERE = Path(__file__).parent
CONFORMANCE = ROOT / "tests" / "conformance"
MINUTES = 60.0
# As in core/build.gradle.kts: Android 8 knows Java 8's library and little more.
CHECKS = ("-Werror", "-Wextra", "-jvm-target", "1.8", "-Xjdk-release=1.8", "-no-reflect")


class Tools:
    """What `.ci/android` installs. `folder`: compiled classes go there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        packages = os.environ.get("BURNISH_ANDROID_TOOLS") or Path.home() / ".cache" / "burnish" / "android"
        npm, java = Path(packages) / "node_modules", Path("/usr/share/java")
        self.compiler = npm / "kotlin-compiler" / "bin" / "kotlinc"
        lib = npm / "kotlin-compiler" / "lib"
        self.stdlib, self.coroutines = lib / "kotlin-stdlib.jar", lib / "kotlinx-coroutines-core-jvm.jar"
        self.executorch = npm / "react-native-executorch" / "android" / "libs" / "classes.jar"
        self.gson, self.junit, self.hamcrest = java / "gson.jar", java / "junit4.jar", java / "hamcrest.jar"
        needed = (self.compiler, self.executorch, self.gson, self.junit)
        missing = [str(path) for path in needed if not path.exists()]
        missing += [name for name in ("java", "javac", "g++") if shutil.which(name) is None]
        if missing:
            pytest.skip(f"no {', '.join(missing)}; run .ci/android")

    @property
    def libraries(self) -> list[Path]:
        return [self.coroutines, self.gson]

    @cached_property
    def core(self) -> Path:
        """:core as a jar."""
        return self.compile("core", self.libraries, DEMO / "core" / "src" / "main" / "kotlin")

    @cached_property
    def core_tests(self) -> Path:
        """:core's own tests as a jar."""
        sources = DEMO / "core" / "src" / "test" / "kotlin"
        path = [*self.libraries, self.core, self.junit, self.hamcrest]
        return self.compile("core-tests", path, sources, options=[f"-Xfriend-paths={self.core}"])

    @cached_property
    def standins(self) -> Path:
        """Classes that stand in for Facebook's native loader, which the ExecuTorch classes ask for."""
        out = self.folder / "standins"
        call(["javac", "-Xlint:all", "-Werror", "-d", out, *sorted((HERE / "jvm" / "standins").rglob("*.java"))])
        return out

    @cached_property
    def executorch_module(self) -> Path:
        """:executorch, compiled against ExecuTorch's own classes, with the driver of these tests."""
        sources = [DEMO / "executorch" / "src" / "main" / "kotlin", HERE / "jvm" / "RestoreOnJvm.kt"]
        return self.compile("executorch", [*self.libraries, self.core, self.executorch, self.standins], *sources)

    @cached_property
    def shim(self) -> Path:
        """The native half of ExecuTorch's Java classes, over the desktop SDK of its Python wheel."""
        found = find_spec("executorch")
        assert found is not None
        assert found.submodule_search_locations
        sdk = Path(next(iter(found.submodule_search_locations)))
        java = Path(os.path.realpath(shutil.which("javac") or "")).parents[1] / "include"
        out = self.folder / "libshim.so"
        include = [sdk / "include", sdk / "include" / "executorch" / "runtime" / "core" / "portable_type" / "c10"]
        headers = [option for path in (*include, java, java / "linux") for option in ("-isystem", path)]
        libraries = ["-lexecutorch", "-lexecutorch_backend_xnnpack", "-lexecutorch_threadpool"]
        options = [
            "-std=c++17",
            "-O1",
            "-shared",
            "-fPIC",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-DC10_USING_CUSTOM_GENERATED_MACROS",
        ]
        # Nothing refers to the delegate by name: it registers itself when it is loaded.
        links = [f"-L{sdk / 'lib'}", "-Wl,--no-as-needed", *libraries, f"-Wl,-rpath,{sdk / 'lib'}"]
        call(["g++", *options, *headers, HERE / "jvm" / "shim.cpp", "-o", out, *links])
        return out

    def compile(self, name: str, path: Sequence[Path], *sources: Path, options: Sequence[str] = ()) -> Path:
        """A jar of Kotlin sources; a warning is an error."""
        out = self.folder / f"{name}.jar"
        call(["bash", self.compiler, *CHECKS, *options, "-cp", joined(path), "-d", out, *sources])
        return out

    def java(self, path: Sequence[Path], *arguments: object, **properties: object) -> subprocess.CompletedProcess[str]:
        """Run a class; what it said, whatever it ended with."""
        settings = [f"-D{name.replace('_', '.')}={value}" for name, value in properties.items()]
        whole = joined([*path, *self.libraries, self.core, self.stdlib])
        command = ["java", "-Xmx1g", *settings, "-cp", whole, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=5 * MINUTES, check=False)


def joined(path: Sequence[Path]) -> str:
    """A class path."""
    return ":".join(map(str, path))


def call(command: Sequence[object]) -> str:
    """Run a tool that must succeed and have nothing to say."""
    environment = os.environ | {"JAVA_OPTS": "-Xmx1g -XX:TieredStopAtLevel=1"}
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=10 * MINUTES,
        check=False,
        env=environment,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-4000:]
    assert "warning" not in said, said[-4000:]
    return said
