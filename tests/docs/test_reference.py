"""Every setting, error code and metric is documented, and nothing is documented that does not exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from control_plane import errors
from control_plane.config import Settings
from serving_agent.contract import metric_names

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"


def first_column(page: str) -> set[str]:
    """The code-quoted first cells of every table row of a reference page."""
    return set(re.findall(r"^\| `([^`]+)`", (REFERENCE / page).read_text(), flags=re.MULTILINE))


def all_errors(base: type[errors.SignalboxError]) -> set[type[errors.SignalboxError]]:
    found = {base}
    for child in base.__subclasses__():
        found |= all_errors(child)
    return found


def test_every_setting_is_documented() -> None:
    assert first_column("settings.md") == {f"SIGNALBOX_{name.upper()}" for name in Settings.model_fields}


def test_settings_page_says_what_the_code_says() -> None:
    page = (REFERENCE / "settings.md").read_text()
    for name, field in Settings.model_fields.items():
        assert str(field.description) in page, name


def test_every_error_code_is_documented_with_its_status() -> None:
    page = (REFERENCE / "errors.md").read_text()
    kinds = all_errors(errors.SignalboxError) - {errors.SignalboxError}
    ours = {kind for kind in kinds if kind.__module__ == errors.__name__}
    for kind in ours:
        assert f"| `{kind.code}` | {kind.http_status} |" in page, kind
    assert first_column("errors.md") >= {kind.code for kind in ours}


def test_error_tree_in_the_docstring_is_the_real_one() -> None:
    for kind in all_errors(errors.SignalboxError):
        assert kind.__name__ in str(errors.__doc__)


def test_every_agent_metric_is_documented() -> None:
    names = {value for name, value in vars(metric_names).items() if name.isupper() and isinstance(value, str)}
    assert names <= first_column("metrics.md")


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))], ids=lambda p: p.name
)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target
