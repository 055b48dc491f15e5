"""`tensors.json`: what the graph of a text model takes and returns, where clients send text instead.

It lies beside the tokenizer of a variant whose signature is that of its handler (`text` → ...).
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from serving_agent.contract.signature import Signature

FILE = "tensors.json"


def read(artifact_dir: Path) -> Signature | None:
    """Return the graph's own signature; None where the file is missing. Raises msgspec.MsgspecError."""
    try:
        return msgspec.json.decode((artifact_dir / FILE).read_bytes(), type=Signature)
    except FileNotFoundError:
        return None


def write(signature: Signature, artifact_dir: Path) -> None:
    """Put the graph's own signature beside it."""
    (artifact_dir / FILE).write_bytes(msgspec.json.format(msgspec.json.encode(signature), indent=2))
