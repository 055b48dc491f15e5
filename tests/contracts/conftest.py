"""Both kinds of registry, for the suites that must find them alike."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from control_plane.registry import session as sessions
from control_plane.registry.tables import Base
from control_plane.services.context import Context
from tests.fakes import postgres
from tests.fakes.registry import open_home


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """An empty database of a server that ends with the tests."""
    if postgres.binaries() is None:
        pytest.skip("no Postgres binaries on this machine")
    with postgres.running() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Context]:
    """An empty home, on SQLite and on Postgres."""
    if request.param == "sqlite":
        context = open_home(tmp_path / "home")
    else:
        context = open_home(tmp_path / "home", database_url=request.getfixturevalue("postgres_url"))
    yield context
    if request.param == "postgres":
        with sessions.write(context.engine) as session:
            names = ", ".join(table.name for table in Base.metadata.sorted_tables)
            session.execute(text(f"TRUNCATE {names}"))
    context.engine.dispose()
