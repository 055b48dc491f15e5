"""Transactions on SQLite: writers wait for each other, readers never do."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import text

from control_plane.errors import ConflictError, UnavailableError
from control_plane.registry import migrate, session
from control_plane.registry.tables import Model
from control_plane.services.context import Context
from tests.fakes.registry import open_home


@pytest.fixture
def ctx(tmp_path: Path) -> Iterator[Context]:
    context = open_home(tmp_path)
    yield context
    context.engine.dispose()


def add(ctx: Context, name: str) -> None:
    with session.write(ctx.engine) as writing:
        writing.add(Model(name=name, created_at=1.0))


def test_the_file_is_in_wal_with_foreign_keys(ctx: Context) -> None:
    with session.read(ctx.engine) as reading:
        assert reading.scalar(text("PRAGMA journal_mode")) == "wal"
        assert reading.scalar(text("PRAGMA foreign_keys")) == 1


def test_writers_that_read_first_never_lose_an_update(ctx: Context) -> None:
    add(ctx, "digits")

    def count_up(_: int) -> None:
        for _ in range(20):
            with session.write(ctx.engine) as writing:
                writing.query(Model).one().last_number += 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count_up, range(4)))
    with session.read(ctx.engine) as reading:
        assert reading.query(Model).one().last_number == 80


def test_a_reader_sees_one_moment_and_does_not_wait_for_a_writer(ctx: Context) -> None:
    add(ctx, "one")
    written = threading.Event()
    with session.read(ctx.engine) as reading:
        assert reading.query(Model).count() == 1

        def write() -> None:
            add(ctx, "two")
            written.set()

        thread = threading.Thread(target=write)
        thread.start()
        assert written.wait(10)
        thread.join()
        assert reading.query(Model).count() == 1
    with session.read(ctx.engine) as reading:
        assert reading.query(Model).count() == 2


def test_a_registry_locked_for_too_long_is_unavailable_not_a_database_error(
    ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "BUSY_TIMEOUT_S", 0.1)
    impatient = session.open_engine(ctx.settings.database)
    holder = sqlite3.connect(ctx.settings.root / "signalbox.db", isolation_level=None)
    try:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(UnavailableError) as caught, session.write(impatient) as writing:
            writing.execute(text("SELECT 1"))
        assert "locked" not in str(caught.value)
    finally:
        holder.close()
        impatient.dispose()


def test_a_broken_constraint_is_a_conflict(ctx: Context) -> None:
    add(ctx, "digits")
    with pytest.raises(ConflictError):
        add(ctx, "digits")


def test_the_check_of_migrations_finds_a_missing_column(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path / 'r.db'}"
    migrate.upgrade(url)
    with sqlite3.connect(tmp_path / "r.db") as raw:
        raw.execute("ALTER TABLE models DROP COLUMN description")
    raw.close()
    assert any("description" in difference for difference in migrate.check(url))
    assert migrate.main(["--check"]) == 0
    assert migrate.main([]) == 2


def test_downgrading_takes_every_table_away(tmp_path: Path) -> None:
    from alembic import command

    url = f"sqlite:///{tmp_path / 'r.db'}"
    migrate.upgrade(url)
    with migrate._connected(url) as connection:
        command.downgrade(migrate._config(connection), "base")
    with sqlite3.connect(tmp_path / "r.db") as raw:
        names = {row[0] for row in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    raw.close()
    assert names == {"alembic_version"}
