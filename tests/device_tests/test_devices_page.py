"""docs/devices.md names every field of the files it explains."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest
from burnish.device_tests.devices import KINDS
from burnish.device_tests.job import Job, JobResult
from burnish.device_tests.perf import Perf
from burnish.device_tests.records import Record
from burnish.runtime.controller import Policy
from pydantic import BaseModel

DOCS = (Path(__file__).parents[2] / "docs" / "devices.md").read_text()


def fields(kind: Any) -> set[str]:
    """Of a record and of all records in it; what the runtime defines is explained elsewhere."""
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return {name for part in get_args(kind) for name in fields(part)}
    if not issubclass(kind, Record):
        return set()
    return {name for key, field in kind.model_fields.items() for name in {key, *fields(field.annotation)}}


@pytest.mark.parametrize("kind", [Perf, Job, JobResult])
def test_every_field_is_explained(kind: type[Record]) -> None:
    wanted = fields(kind)
    assert len(wanted) > 8
    assert not fields(Policy)
    named = set(re.findall(r"`(\w+)(?:\[\])?`", DOCS))
    assert wanted <= named


def test_every_kind_of_device_is_explained() -> None:
    assert all(f"`{kind}" in DOCS for kind in KINDS)
