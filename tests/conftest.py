"""Fixtures of more than one kind of test: the whole product, running once for all that can share it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import stack as stacks
from tests.fakes.waiting import wait_until


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Name each test after the kind of its folder: `-m unit`, `-m browser`, ..."""
    for item in items:
        item.add_marker(Path(str(item.path)).relative_to(Path(__file__).parent).parts[0])


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[stacks.Stack]:
    """A running Signalbox that tests share: use endpoint names of your own."""
    with stacks.running(stacks.settings_for(tmp_path_factory.mktemp("home"))) as running:
        yield running


@pytest.fixture(scope="session")
def digits(stack: stacks.Stack) -> list[dict[str, Any]]:
    """The example models, really trained by the example job; returns the held-out digits."""
    job = stack.api.post("/jobs", json={"kind": "example", "params": {}}).json()

    def finished() -> dict[str, Any] | None:
        seen = stack.api.get(f"/jobs/{job['id']}").json()
        return seen if seen["state"] in {"succeeded", "failed", "cancelled"} else None

    done = wait_until(finished, timeout_s=120, what=lambda: stack.api.get(f"/jobs/{job['id']}").text)
    assert done["state"] == "succeeded", done
    examples: list[dict[str, Any]] = stack.api.get("/models/digits/versions/1/examples").json()
    return examples
