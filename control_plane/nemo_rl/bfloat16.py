"""float32 written as bfloat16, rounded by torch's own `.to(torch.bfloat16)`."""

from __future__ import annotations

from typing import Final

from control_plane.admission.safetensors_writer import Cast

TARGETS: Final = {"F32": "BF16"}


def cast() -> Cast:
    """Return the cast for `safetensors_writer`: float32 becomes bfloat16, other types stay."""
    return Cast(TARGETS, _convert)


def _convert(block: memoryview, dtype: str) -> bytes:
    import torch

    if dtype != "F32":
        raise ValueError(f"{dtype} is not cast")
    rounded = torch.frombuffer(block, dtype=torch.float32).to(torch.bfloat16)
    return rounded.view(torch.uint8).numpy().tobytes()
