"""The Kotlin tools, once for all tests of the Android demo."""

from __future__ import annotations

import pytest
from kotlin import Tools


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    return Tools(tmp_path_factory.mktemp("kotlin"))
