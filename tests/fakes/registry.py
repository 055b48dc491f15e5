"""A migrated registry in a folder of its own, and versions to fill it with."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

from control_plane.config import Settings, prepare_home
from control_plane.registry import migrate
from control_plane.services import registration
from control_plane.services.context import Context, open_context
from serving_agent.contract.signature import Signature, TensorSpec

SIGNATURE = Signature(
    (TensorSpec("image", "FP32", (-1, 1, 8, 8)),), (TensorSpec("logits", "FP32", (-1, 10)),)
)


def open_home(home: Path, **settings: Any) -> Context:
    """A context on a fresh, migrated home; no disk floor unless *settings* say so."""
    chosen = Settings(home=home, **{"disk_floor": 0.0, **settings})
    prepare_home(chosen)
    lay_out(chosen)
    return open_context(chosen)


def lay_out(settings: Settings) -> None:
    """Bring the registry to the newest tables; a new one on SQLite is a copy of one that was migrated."""
    path = Path(settings.database.removeprefix("sqlite:///"))
    if settings.database.startswith("sqlite:///") and not path.exists():
        path.write_bytes(_empty())
    else:
        migrate.upgrade(settings.database)


@cache
def _empty() -> bytes:
    """The file of a migrated registry on SQLite with nothing in it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "empty.db"
        migrate.upgrade(f"sqlite:///{path}")
        with closing(sqlite3.connect(path)) as connection:
            return connection.serialize()


def files(folder: Path, **content: bytes) -> Path:
    """A folder that holds `<name>.bin` for every name in *content*."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in content.items():
        (folder / f"{name}.bin").write_bytes(data)
    return folder


def register(ctx: Context, model: str = "digits", *, content: bytes = b"weights", **changes: Any) -> str:
    """Register a version of *model* whose only file holds *content*; returns `model@N`."""
    source = files(ctx.settings.root / "source" / content.hex()[:32], model=content)
    given: dict[str, Any] = {
        "format": "torchscript",
        "handler": "tensor",
        "signature": SIGNATURE,
        "actor": "ana",
        **changes,
    }
    return registration.register(ctx, model=model, files_dir=source, **given)
