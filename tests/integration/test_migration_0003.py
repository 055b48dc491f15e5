"""Revision 0003: files of uploads move from a JSON column into rows, and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import text

from control_plane.registry import migrate
from control_plane.services import upload_rows, uploads
from control_plane.services.context import Context
from tests.fakes import postgres
from tests.fakes.registry import open_home

OLD = [
    {"path": "a.pt", "size_bytes": 4, "received_bytes": 4, "sha256": "0" * 64},
    {"path": "b/c.pt", "size_bytes": 9, "received_bytes": 5, "sha256": None},
]
ROW = """INSERT INTO uploads
(id, model_name, state, files, details, labels, found, created_by, created_at, updated_at)
VALUES (:id, 'm', 'receiving', :files, '{}', '[]', '{}', 'ana', 1.0, 1.0)"""


def to(url: str, revision: str) -> None:
    with migrate._connected(url) as connection:
        move = command.downgrade if revision < migrate._present(connection) else command.upgrade
        move(migrate._config(connection), revision)


def check(ctx: Context) -> None:
    url = ctx.settings.database
    ctx.engine.dispose()
    to(url, "0002")
    with ctx.engine.begin() as connection:
        for number, files in enumerate((OLD, [])):
            connection.execute(text(ROW), {"id": f"{number:032d}", "files": json.dumps(files)})
    ctx.engine.dispose()
    migrate.upgrade(url)
    assert migrate.check(url) == ()
    seen = uploads.get(ctx, "0" * 32)
    assert [(file.path, file.size_bytes, file.received_bytes, file.sha256) for file in seen.files] == [
        ("a.pt", 4, 4, "0" * 64),
        ("b/c.pt", 9, 0, None),
    ]
    assert (seen.reference, seen.files[1].transfer_id) == (None, None)
    assert uploads.get(ctx, f"{1:032d}").files == ()
    ctx.engine.dispose()
    to(url, "0002")
    with ctx.engine.begin() as connection:
        stored = connection.execute(text("SELECT files FROM uploads ORDER BY id")).scalars().all()
    kept = [json.loads(files) if isinstance(files, str) else files for files in stored]
    assert kept == [[OLD[0], {**OLD[1], "received_bytes": 0}], []]
    ctx.engine.dispose()
    migrate.upgrade(url)
    assert len(uploads.get(ctx, "0" * 32).files) == 2
    assert upload_rows.home(ctx, "0" * 32).parent == ctx.settings.uploads_dir


def test_files_move_into_rows_and_back(tmp_path: Path) -> None:
    ctx = open_home(tmp_path / "home")
    check(ctx)
    ctx.engine.dispose()


@pytest.mark.skipif(postgres.binaries() is None, reason="Postgres is not installed")
def test_files_move_into_rows_and_back_on_postgres(tmp_path: Path) -> None:
    with postgres.running() as url:
        ctx = open_home(tmp_path / "home", database_url=url)
        check(ctx)
        ctx.engine.dispose()
