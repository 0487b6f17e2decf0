"""The Apple-only part of the iOS demo: what can be said of it where it cannot be compiled."""

from __future__ import annotations

import plistlib
import re

import swift

APP = swift.PACKAGE / "App"
PROJECT = APP / "RestoreApp.xcodeproj" / "project.pbxproj"
CORE = swift.PACKAGE / "Sources" / "RestoreCore"


@swift.needs_swift
def test_every_file_parses() -> None:
    said = swift.run(["swiftc", "-frontend", "-parse", *swift.sources()])
    assert "error:" not in said, said
    assert "warning:" not in said, said


@swift.needs_swift
def test_every_file_is_formatted() -> None:
    configuration = swift.PACKAGE / ".swift-format"
    said = swift.run(["swift-format", "lint", "--strict", "--configuration", configuration, *swift.sources()])
    assert said.strip() == ""


@swift.needs_swift
def test_the_project_is_a_property_list_whose_references_exist() -> None:
    assert "OK" in swift.run(["plutil", "--", PROJECT])
    text = PROJECT.read_text()
    objects = set(re.findall(r"^\t\t(B0A0\w{20})(?: /\*.*?\*/)? = \{", text, re.MULTILINE))
    assert objects == set(re.findall(r"B0A0\w{20}", text))
    for place in ("RestoreApp", "Models"):
        assert f"path = {place};" in text
        assert (APP / place).is_dir()


def test_core_imports_nothing_of_apple() -> None:
    for path in CORE.glob("*.swift"):
        imports = re.findall(r"^\s*(?:@\w+ )?import (\w+)", path.read_text(), re.MULTILINE)
        assert set(imports) <= {"Foundation"}, path


def test_the_app_has_no_way_into_the_network() -> None:
    reaching = r"\b(URLSession|NWConnection|NSURLConnection|CFNetwork|WebKit|WKWebView|import Network|http[s]?://)"
    for path in swift.sources():
        assert not re.search(reaching, path.read_text()), path
    privacy = plistlib.loads((APP / "RestoreApp" / "PrivacyInfo.xcprivacy").read_bytes())
    assert privacy["NSPrivacyTracking"] is False
    assert privacy["NSPrivacyCollectedDataTypes"] == []


def test_what_the_app_asks_permission_for_is_explained() -> None:
    text = PROJECT.read_text()
    for key in ("NSCameraUsageDescription", "NSPhotoLibraryAddUsageDescription"):
        assert text.count(f"INFOPLIST_KEY_{key} = ") == 2


def test_the_app_is_launched_as_profile_launches_it() -> None:
    """`burnish profile --device ios:UDID` and the app agree on names."""
    from burnish.device_tests.devices import ios

    launched = (APP / "RestoreApp" / "LaunchedTask.swift").read_text()
    source = (swift.REPOSITORY / "device_tests" / "devices" / "ios.py").read_text()
    for option in ("--burnish-job", "--burnish-remove"):
        assert f'"{option}"' in launched
        assert f'"{option}"' in source
    assert f"PRODUCT_BUNDLE_IDENTIFIER = {ios.APP};" in PROJECT.read_text()
    assert ios.IosDevice.scratch == "Documents"


def test_the_programs_that_are_loaded_are_those_that_are_exported() -> None:
    from burnish.runtime.methods import REFINE_INPUTS

    session = (swift.PACKAGE / "Sources" / "RestoreCoreML" / "CoreMLSession.swift").read_text()
    loader = (swift.PACKAGE / "Sources" / "RestoreCoreML" / "CoreMLLoader.swift").read_text()
    names = '", "'.join(REFINE_INPUTS)
    assert f'["{names}"]' in session
    for name in ("restored", "quality", "tokens", "assessment"):
        assert f'"{name}"' in session
    assert 'package = "student.mlpackage"' in loader
