"""A migrated registry in a folder of its own, and versions to fill it with."""

from __future__ import annotations

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
    migrate.upgrade(chosen.database)
    return open_context(chosen)


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
