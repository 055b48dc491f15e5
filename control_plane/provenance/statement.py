"""What is signed of a version: the statement, its canonical JSON and its envelope. Pure."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import msgspec

from control_plane.provenance.keys import SigningKey
from serving_agent.contract.provenance import (
    PAYLOAD_TYPE,
    PREDICATE_TYPE,
    STATEMENT_TYPE,
    FileDigest,
    Predicate,
    Statement,
    Subject,
    pre_authentication,
)


def canonical(value: Any) -> bytes:
    """*value* as the one JSON text of it: keys sorted, no spaces, ASCII, finite numbers.

    Equal values give equal bytes. Raises ValueError for NaN and infinities, TypeError for what is not JSON.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def hash_of(value: Any) -> str:
    """Hexadecimal sha256 of *value* as canonical JSON."""
    return hashlib.sha256(canonical(value)).hexdigest()


def statement(files: Mapping[str, str], predicate: Predicate) -> Statement:
    """The statement that *files* (path to hexadecimal sha256) are what *predicate* says."""
    return Statement(
        type=STATEMENT_TYPE,
        subject=tuple(
            Subject(name=path, digest=FileDigest(sha256=sha256)) for path, sha256 in sorted(files.items())
        ),
        predicate_type=PREDICATE_TYPE,
        predicate=predicate,
    )


def sealed(said: Statement, key: SigningKey) -> dict[str, Any]:
    """*said* as a signed DSSE envelope, plain JSON."""
    payload = canonical(msgspec.to_builtins(said))
    signature = key.sign(pre_authentication(PAYLOAD_TYPE, payload))
    return {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": key.id, "sig": base64.b64encode(signature).decode()}],
    }
