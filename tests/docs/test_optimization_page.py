"""The pages of the lab say what the code says: methods with their parameters, codes, defaults."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from control_plane.domain.optimization import Budget, Conditions, Objective, TrialState
from control_plane.jobs import bench
from control_plane.optimization import catalog, search
from control_plane.services import optimization_rows

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "optimization.md").read_text()


def test_page_of_methods_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("method_reference", DOCS / "method_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = module.PAGE.read_text()
    assert page == module.render(catalog.methods()), "run: python docs/method_reference.py"
    assert re.findall(r"^## `(.+)`$", page, re.MULTILINE) == list(catalog.names())


def test_defaults_are_those_of_the_code() -> None:
    budget, conditions = Budget(), Conditions()
    for words in (
        f"at least {budget.min_agreement:.1%} of rows",
        f"at most {100 * budget.max_metric_drop:g} points",
        f"{budget.min_speedup:g} times as fast",
        f"{budget.min_shrink:g} times smaller",
        f"{conditions.rounds} rounds",
        f"batches of {' and '.join(str(size) for size in conditions.batches)}",
    ):
        assert words in PAGE, words


def test_every_objective_state_source_and_failure_is_named() -> None:
    for name in (*Objective, *TrialState, *optimization_rows.SOURCES, *bench.NEXT_STEPS):
        assert f"`{name}`" in PAGE, name
    assert f"{search.SCREENING_ROUNDS} rounds" in PAGE
    assert f"{search.SCREENING_ROWS} rows" in PAGE
