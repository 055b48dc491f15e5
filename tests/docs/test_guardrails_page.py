"""docs/reference/guardrails.md lists every guardrail with its real figures, and every code of a verdict."""

from __future__ import annotations

import re
from pathlib import Path

from control_plane.analysis import catalog, slo_guard, verdict
from control_plane.config import Settings
from control_plane.domain.rollout import Step

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "guardrails.md").read_text()
ROWS = re.findall(
    r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", PAGE, re.MULTILINE
)


def test_every_guardrail_is_listed_with_its_figures() -> None:
    listed = [(name, float(low), float(high), float(share)) for name, _, _, low, high, share in ROWS]
    assert listed == [
        (one.name, one.tolerance, one.max_regression, one.alpha_share) for one in catalog.defaults()
    ]


def test_where_a_guardrail_applies_is_true() -> None:
    for name, _, applies, *_ in ROWS:
        metric = catalog.get(name)
        assert metric.applies(Step(weight=0.5)) is ("weight" in applies), name
        assert metric.applies(Step(weight=0.0, mirror=0.5)) is ("copies" in applies), name


def test_the_rest_of_alpha_is_named() -> None:
    assert f"The remaining {slo_guard.SHARE:g} belong to the guard at weight 1.0" in PAGE
    assert f"at most {verdict.ALPHA:.0%}".replace("%", " %") in PAGE


def test_which_guardrails_need_data_is_true() -> None:
    found = re.search(
        r"(`errors`, `tries`[^;]*)must\s+have data of their own;(.*?)count from", PAGE, re.DOTALL
    )
    assert found is not None
    needed, other = found.groups()
    for names, required in ((needed, True), (other, False)):
        assert set(re.findall(r"`(\w+)`", names)) == {
            metric.name for metric in catalog.metrics() if metric.required is required
        }


def test_every_code_of_a_verdict_is_listed_and_no_other() -> None:
    listed = set(re.findall(r"^\| `([a-z-]+)` \| (?:PASS|WAIT|FAIL|NO_DATA) \|", PAGE, re.MULTILINE))
    source = Path(verdict.__file__).read_text()
    used = set(re.findall(r'code="([a-z-]+)"', source)) | set(re.findall(r'_no_data\(\s*"([a-z-]+)"', source))
    assert listed == used


def test_the_setting_of_staleness_exists() -> None:
    names = re.findall(r"`SIGNALBOX_(\w+)`", PAGE)
    assert names
    assert {name.lower() for name in names} <= set(Settings.model_fields)
