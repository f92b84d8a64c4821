"""Names of checks: each is reported by the code and explained in the documentation."""

from pathlib import Path

import pytest

from embedway.quality.names import REFUSING_CHECKS, WARNING_CHECKS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", [*REFUSING_CHECKS, *WARNING_CHECKS])
def test_a_check_is_reported_and_documented(name):
    sources = (path for path in (ROOT / "src").rglob("*.py") if path.name != "names.py")
    assert any(f'"{name}"' in path.read_text("utf-8") for path in sources)
    assert f"`{name}`" in (ROOT / "docs" / "quality.md").read_text("utf-8")
