"""Bring a registry to the newest tables: one Alembic tree, for SQLite and Postgres alike.

`python -m control_plane.registry.migrate --check` says whether models and migrations agree.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, event

from control_plane.errors import ConflictError
from control_plane.registry import session, tables

FOLDER = Path(__file__).parents[2] / "migrations"
_LOCK = 7_164_532  # any fixed number: concurrent upgrades of one Postgres wait for each other


def upgrade(url: str) -> None:
    """Bring the registry at *url* to the newest tables, creating it if need be. Idempotent; all or nothing.

    Two processes may call it at the same time. Raises ConflictError when a newer Signalbox wrote it, and
    UnavailableError when it does not answer.
    """
    with _connected(url) as connection:
        present = _present(connection)
        _refuse_unknown(present)
        if present != head():
            command.upgrade(_config(connection), "head")
            _check_foreign_keys(connection)


def head() -> str:
    """The newest revision this code knows."""
    revision = ScriptDirectory(str(FOLDER)).get_current_head()
    if revision is None:
        raise LookupError(f"no migrations in {FOLDER}")
    return revision


def is_current(engine: Engine) -> bool:
    """Whether the registry behind *engine* has exactly the tables this code expects."""
    with engine.connect() as connection:
        return _present(connection) == head()


def check(url: str) -> tuple[str, ...]:
    """What differs between the models and the migrated registry at *url*; empty when nothing does."""
    with _connected(url) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "include_object": _ours})
        return tuple(str(difference) for difference in compare_metadata(context, tables.Base.metadata))


def _ours(_object: object, name: str | None, kind: str, _reflected: bool, _other: object) -> bool:  # noqa: FBT001  Alembic's signature
    return not (kind == "table" and name == "alembic_version")


def _present(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _refuse_unknown(present: str | None) -> None:
    known = {script.revision for script in ScriptDirectory(str(FOLDER)).walk_revisions()}
    if present is not None and present not in known:
        raise ConflictError(
            f"The registry was written by a newer Signalbox (revision {present})",
            next_step="Start the newer version, or restore a registry from before the upgrade.",
        )


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


@contextmanager
def _connected(url: str) -> Iterator[Connection]:
    """A connection in one write transaction that no other upgrade shares."""
    engine = session.open_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _without_foreign_keys)
    try:
        with session.write(engine) as transaction:
            connection = transaction.connection()
            if engine.dialect.name == "postgresql":
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
            yield connection
    finally:
        engine.dispose()


def _without_foreign_keys(connection: Any, _record: object) -> None:
    """Batch migrations copy and drop tables, which SQLite takes for deleting every row that others name."""
    connection.execute("PRAGMA foreign_keys=OFF")


def _check_foreign_keys(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
        if broken:
            raise ConflictError(f"The upgrade would break references between tables: {broken[:5]}")


def main(arguments: list[str]) -> int:
    """Check that a freshly migrated registry has exactly the tables of the models. 0 when it does."""
    if arguments != ["--check"]:
        sys.stderr.write("usage: python -m control_plane.registry.migrate --check\n")
        return 2
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/check.db"
        upgrade(url)
        differences = check(url)
    for difference in differences:
        sys.stderr.write(f"{difference}\n")
    return 1 if differences else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
