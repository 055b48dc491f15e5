"""Engine and transactions: SQLite in WAL with immediate writes, or Postgres.

Database errors leave here in our own terms: a broken constraint is a ConflictError, a registry that does not
answer in time an UnavailableError.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError, InterfaceError, OperationalError
from sqlalchemy.orm import Session

from control_plane.errors import ConflictError, UnavailableError

BUSY_TIMEOUT_S = 15
"""How long a SQLite writer waits for another one before it gives up, in seconds."""


def open_engine(url: str) -> Engine:
    """Open the registry at *url* (SQLAlchemy URL). SQLite gets WAL, foreign keys and a busy timeout."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return create_engine(parsed, pool_pre_ping=True)
    if parsed.database:
        Path(parsed.database).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    engine = create_engine(parsed, connect_args={"timeout": BUSY_TIMEOUT_S})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin)
    return engine


@contextmanager
def read(engine: Engine) -> Iterator[Session]:
    """A session for reading: one consistent snapshot, never blocks writers, never commits."""
    with _in_our_terms(), engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection = connection.execution_options(isolation_level="REPEATABLE READ")
        with Session(connection, expire_on_commit=False) as session:
            yield session


@contextmanager
def write(engine: Engine) -> Iterator[Session]:
    """A session for one transaction: committed at the end, rolled back by any exception.

    On SQLite it takes the write lock at once (BEGIN IMMEDIATE), so what it read cannot change under it. On
    Postgres lock what the decision rests on: rows with `with_for_update`, names with `lock`.
    """
    with (
        _in_our_terms(),
        engine.connect().execution_options(signalbox_write=True) as connection,
        Session(connection, expire_on_commit=False) as session,
        session.begin(),
    ):
        yield session


def lock(session: Session, name: str) -> None:
    """Hold the lock called *name* until the transaction of *session* ends (see `write`).

    For decisions about rows that do not exist yet. On SQLite the write lock is held already.
    """
    if session.get_bind().dialect.name == "postgresql":
        key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})


@contextmanager
def _in_our_terms() -> Iterator[None]:
    try:
        yield
    except IntegrityError as error:
        raise ConflictError(
            "Someone else changed the same thing at the same moment", next_step="Look again and repeat it."
        ) from error
    except (OperationalError, InterfaceError) as error:
        raise UnavailableError(
            "The registry does not answer",
            next_step="Try again in a few seconds; see the log if it stays so.",
        ) from error


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # we send BEGIN ourselves
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Any) -> None:
    immediate = connection.get_execution_options().get("signalbox_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
