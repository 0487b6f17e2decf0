"""`android_demo/app`, which cannot be compiled without Google's libraries: what can be told from its sources."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest
import tomllib
from kotlin import DEMO, ROOT, Tools, joined

APP = DEMO / "app" / "src" / "main"
ANDROID = "{http://schemas.android.com/apk/res/android}"
TOOLS = "{http://schemas.android.com/tools}"
SOURCES = sorted((APP / "kotlin").rglob("*.kt"))
# Names of these packages are not there to be resolved; all others are.
FOREIGN = ("android.", "androidx.")


def strings() -> dict[str, str]:
    root = ElementTree.parse(APP / "res" / "values" / "strings.xml").getroot()
    return {entry.attrib["name"]: entry.text or "" for entry in root.iter("string")}


def catalogue() -> dict[str, dict[str, object]]:
    return tomllib.loads((DEMO / "gradle" / "libs.versions.toml").read_text())


def manifest() -> ElementTree.Element:
    return ElementTree.parse(APP / "AndroidManifest.xml").getroot()


def errors_of(tools: Tools, *sources: Path) -> list[str]:
    """What the compiler has to say of sources when there is no Android."""
    path = [*tools.libraries, tools.core, tools.executorch_module, tools.executorch]
    command = ["bash", tools.compiler, "-no-reflect", "-cp", joined(path), "-d", tools.folder / "nothing.jar", *sources]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=600, check=False)
    return [line for line in (done.stdout + done.stderr).splitlines() if ": error: " in line]


def test_every_source_parses(tools: Tools) -> None:
    """And every import of our own, of Kotlin's and of Java's is found; what is not comes from Android."""
    errors = errors_of(tools, *SOURCES)
    assert errors
    assert not [line for line in errors if "syntax error" in line.lower()], errors
    for source in SOURCES:
        lines = source.read_text().splitlines()
        found = [re.search(rf"{re.escape(source.name)}:(\d+):\d+: error: ", line) for line in errors]
        for number in {int(match[1]) for match in found if match}:
            line = lines[number - 1]
            if line.startswith("import "):
                assert line.removeprefix("import ").startswith(FOREIGN), f"{source.name}: {line}"


def test_a_syntax_error_would_be_seen(tools: Tools, tmp_path: Path) -> None:
    broken = tmp_path / "Broken.kt"
    broken.write_text((SOURCES[0]).read_text().replace("{", "", 1))
    assert any("syntax error" in line.lower() for line in errors_of(tools, broken))


def test_texts_are_there_and_used() -> None:
    code = "\n".join(source.read_text() for source in SOURCES)
    xml = (APP / "AndroidManifest.xml").read_text()
    used = set(re.findall(r"R\.string\.(\w+)", code)) | set(re.findall(r"@string/(\w+)", xml))
    assert used == set(strings())


def test_texts_number_their_arguments() -> None:
    for name, text in strings().items():
        places = [int(place) for place in re.findall(r"%(\d+)\$", text)]
        assert sorted(set(places)) == list(range(1, len(set(places)) + 1)), name
        assert not re.search(r"%(?!\d+\$)", text.replace("%%", "")), f"{name}: a placeholder without a number"


def test_texts_get_as_many_arguments_as_they_take() -> None:
    code = " ".join(source.read_text() for source in SOURCES)
    for name, text in strings().items():
        takes = len(set(re.findall(r"%(\d+)\$", text)))
        for match in re.finditer(rf"stringResource\(\s*R\.string\.{name}\b", code):
            assert arguments(code[match.end() :]) == takes, name


def arguments(rest: str) -> int:
    """How many more arguments a call has, read up to its closing bracket."""
    depth, count, pending = 1, 0, False
    for character in rest:
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif character == "," and depth == 1:
            pending = True
            continue
        if depth == 0:
            return count
        if pending and not character.isspace():
            count, pending = count + 1, False
    raise AssertionError("a call that does not end")


def test_resources_that_are_referred_to_exist() -> None:
    texts = [path.read_text() for path in APP.rglob("*.xml")]
    there = {path.stem for path in (APP / "res").rglob("*.xml")}
    for path in (APP / "res" / "values").glob("*.xml"):
        there |= {entry.attrib["name"] for entry in ElementTree.parse(path).getroot()}
    for text in texts:
        for kind, name in re.findall(r"\"@(\w+)/([\w.]+)\"", text):
            assert name in there, f"@{kind}/{name}"


def test_the_manifest_asks_for_no_network() -> None:
    permissions = {
        entry.attrib[f"{ANDROID}name"]: entry.attrib for entry in manifest().iter() if "permission" in entry.tag
    }
    kept = {name for name, values in permissions.items() if values.get(f"{TOOLS}node") != "remove"}
    assert kept == {"android.permission.WRITE_EXTERNAL_STORAGE"}
    assert permissions["android.permission.WRITE_EXTERNAL_STORAGE"][f"{ANDROID}maxSdkVersion"] == "28"
    assert "android.permission.INTERNET" in permissions


def test_the_manifest_names_what_exists() -> None:
    application = manifest().find("application")
    assert application is not None
    for activity in application.iter("activity"):
        name = activity.attrib[f"{ANDROID}name"].removeprefix(".")
        assert any(f"class {name}" in source.read_text() for source in SOURCES)
    assert application.attrib[f"{ANDROID}allowBackup"] == "false"
    for provider in application.iter("provider"):
        assert provider.attrib[f"{ANDROID}exported"] == "false"


def test_the_catalogue_has_what_is_used_and_no_more() -> None:
    content = catalogue()
    scripts = "\n".join(path.read_text() for path in DEMO.rglob("build.gradle.kts"))
    for section, prefix in (("libraries", "libs."), ("plugins", "libs.plugins.")):
        names = {name.replace("-", ".") for name in content[section]}
        used = set(re.findall(rf"\b{re.escape(prefix)}(?!plugins|versions)([\w.]+)", scripts))
        assert used == names
    versions = set(content["versions"])
    referred = {
        entry["version"]["ref"]
        for key in ("libraries", "plugins")
        for entry in content[key].values()
        if "version" in entry
    }  # type: ignore[index]
    in_scripts = {
        name.removesuffix(".get").replace(".", "-") for name in re.findall(r"libs\.versions\.([\w.]+?)\.get\b", scripts)
    }
    assert versions == referred | in_scripts


def test_versions_agree_with_the_rest_of_the_project() -> None:
    versions = catalogue()["versions"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert f"executorch=={versions['executorch']}" in project["export"]
    assert f"kotlin-compiler@{versions['kotlin']}" in (ROOT / ".ci" / "android").read_text()
    assert int(str(versions["min-sdk"])) == 26


@pytest.mark.parametrize("name", [":core", ":executorch", ":app"])
def test_modules_are_included(name: str) -> None:
    assert f'"{name}"' in (DEMO / "settings.gradle.kts").read_text()
    assert (DEMO / name.removeprefix(":") / "build.gradle.kts").is_file()


def test_only_one_module_knows_executorch() -> None:
    knows = {path.relative_to(DEMO).parts[0] for path in DEMO.rglob("*.kt") if "org.pytorch" in path.read_text()}
    assert knows == {"executorch"}
    pure = [
        path for path in (DEMO / "core").rglob("*.kt") if re.search(r"^import android", path.read_text(), re.MULTILINE)
    ]
    assert not pure
