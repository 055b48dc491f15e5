"""The REST page is what the routes say."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_rest_page_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("rest_reference", ROOT / "docs" / "rest_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text() == module.render(module.schema()), "run: python docs/rest_reference.py"
