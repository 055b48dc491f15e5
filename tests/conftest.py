"""Fixtures of more than one kind of test: the whole product, running once for all that can share it."""

from __future__ import annotations

import compileall
import inspect
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import httpx
import hypothesis
import pytest

from tests.fakes import example_homes
from tests.fakes import nursery as nurseries
from tests.fakes import stack as stacks
from tests.fakes.nursery import Nursery
from tests.fakes.waiting import wait_until

# how long an example takes says more of the machine than of the code
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# httpx shares one object as the default of all its clients, and five seconds tell of the machine too
_usual: httpx.Timeout = inspect.signature(httpx.Client).parameters["timeout"].default
_usual.connect = _usual.read = _usual.write = _usual.pool = 60.0


ROOT = Path(__file__).parents[1]
PROCESSES_OF = ("control_plane", "serving_agent", "pages")
"""Folders whose modules the processes that tests start import, hundreds of times."""
LONGEST_FIRST = ("integration", "browser", "pages", "docs", "contracts", "unit")


def pytest_configure(config: pytest.Config) -> None:
    """Compile what tests start, once, where the environment does not let Python keep what it compiles."""
    if sys.dont_write_bytecode and not hasattr(config, "workerinput"):
        for name in PROCESSES_OF:
            compileall.compile_dir(ROOT / name, quiet=2)


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None]:
    """Name each test after the kind of its folder: `-m unit`, `-m browser`, ...

    Kinds with long tests come first, in random order each: processes side by side then end together.
    """
    for item in items:
        item.add_marker(kind_of(item))
    yield
    items.sort(key=lambda item: LONGEST_FIRST.index(kind_of(item)))


def kind_of(item: pytest.Item) -> str:
    """The folder of its file below tests/."""
    return Path(str(item.path)).relative_to(Path(__file__).parent).parts[0]


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[stacks.Stack]:
    """A running Signalbox with the example that tests share: use endpoint names of your own."""
    home = example_homes.loaded(tmp_path_factory, tmp_path_factory.mktemp("stack") / "home")
    with stacks.running(stacks.settings_for(home)) as running:
        yield running


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Where agents are forked for tests that are not about how agents start."""
    with nurseries.opened() as opened:
        yield opened


@pytest.fixture(scope="session")
def digits(stack: stacks.Stack) -> list[dict[str, Any]]:
    """The example models, which the example job finds there; returns the held-out digits."""
    job = stack.api.post("/jobs", json={"kind": "example", "params": {}}).json()

    def finished() -> dict[str, Any] | None:
        seen = stack.api.get(f"/jobs/{job['id']}").json()
        return seen if seen["state"] in {"succeeded", "failed", "cancelled"} else None

    done = wait_until(finished, timeout_s=120, what=lambda: stack.api.get(f"/jobs/{job['id']}").text)
    assert done["state"] == "succeeded", done
    examples: list[dict[str, Any]] = stack.api.get("/models/digits/versions/1/examples").json()
    return examples
