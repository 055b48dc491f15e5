"""A version of which one layer is slow on purpose, and how little a quick profile of it takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from safetensors.torch import save_file

from control_plane.domain.profile import Wish
from control_plane.domain.views import Example
from control_plane.services import registration
from control_plane.services.context import Context
from serving_agent.contract.signature import Signature, TensorSpec
from tests.fakes import networks

NETWORK: Final = "tests.fakes.networks:slow_layer"
VERSION: Final = "slow@1"
SLOW: Final = "encoder.1"
"""Path of its slow layer."""
SIGNATURE: Final = Signature((TensorSpec("x", "FP32", (-1, 8)),), (TensorSpec("y", "FP32", (-1, 4)),))
QUICK: Final = Wish(requests=5, seconds=0.3, batch=2, sweep=(1, 2, 4))


def register(ctx: Context, folder: Path, *, model: str = "slow", **changes: Any) -> str:
    """Register the version; the context's settings must list NETWORK among the architectures."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(networks.slow_layer().state_dict(), folder / "model.safetensors")
    (folder / "architecture.json").write_text(json.dumps({"class": NETWORK, "arguments": {}}))
    given: dict[str, Any] = {
        "format": "state_dict",
        "handler": "tensor",
        "signature": SIGNATURE,
        "examples": (Example({"x": [0.5] * 8}, None), Example({"x": [1.0] * 8}, None)),
        "actor": "ana",
        **changes,
    }
    return registration.register(ctx, model=model, files_dir=folder, **given)
