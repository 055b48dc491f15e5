"""Headers of the tus protocol 1.0.0 (https://tus.io/protocols/resumable-upload), read and written. Pure."""

from __future__ import annotations

import base64
import binascii
import re
from email.utils import formatdate
from typing import Final

from control_plane.errors import InvalidInputError
from control_plane.services.receiving import Checksum

VERSION: Final = "1.0.0"
EXTENSIONS: Final = "creation,creation-with-upload,termination,checksum,expiration"
ALGORITHMS: Final = {"sha256": 32, "sha1": 20}
"""What Upload-Checksum may use, with the length of each in bytes."""
BODY_TYPE: Final = "application/offset+octet-stream"
MOST_DIGITS: Final = 18
"""Of a number in a header: below 2^63, which is what the registry holds."""
MOST_METADATA_BYTES: Final = 8192
_NUMBER: Final = re.compile(rf"[0-9]{{1,{MOST_DIGITS}}}")
_KEY: Final = re.compile(r"[!-+\--~]+")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def number(name: str, value: str | None) -> int:
    """The whole number in the header *name*. Raises InvalidInputError."""
    if value is None or not _NUMBER.fullmatch(value):
        shown = "is missing" if value is None else f"is {value[:40]!r}"
        raise InvalidInputError(f"{name} {shown}; it must be a whole number of bytes")
    return int(value)


def metadata(value: str | None) -> dict[str, str]:
    """Upload-Metadata: `key base64, key base64, key`. Raises InvalidInputError; values must be UTF-8."""
    if not value:
        return {}
    if len(value) > MOST_METADATA_BYTES:
        raise InvalidInputError(f"Upload-Metadata is longer than {MOST_METADATA_BYTES} bytes")
    pairs: dict[str, str] = {}
    for pair in value.split(","):
        key, _, encoded = pair.strip().partition(" ")
        if not _KEY.fullmatch(key) or key in pairs:
            raise InvalidInputError(
                f"Upload-Metadata has the key {key[:40]!r}, which is empty, odd or twice there"
            )
        pairs[key] = _text(key, encoded.strip())
    return pairs


def format_metadata(pairs: dict[str, str]) -> str:
    """What `metadata` reads."""
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in pairs.items())


def sha256(value: str | None) -> str | None:
    """A SHA-256 in hexadecimal, in lower case. Raises InvalidInputError."""
    if value is None:
        return None
    if not _SHA256.fullmatch(value.lower()):
        raise InvalidInputError(f"{value[:80]!r} is not a SHA-256 in hexadecimal")
    return value.lower()


def checksum(value: str | None) -> Checksum | None:
    """Upload-Checksum: `algorithm base64`. Raises InvalidInputError for what is not spoken here."""
    if value is None:
        return None
    algorithm, _, encoded = value.partition(" ")
    if algorithm not in ALGORITHMS:
        raise InvalidInputError(
            f"Upload-Checksum names {algorithm[:40]!r}", next_step=f"Use one of {', '.join(ALGORITHMS)}."
        )
    expected = _decoded("Upload-Checksum", encoded)
    if len(expected) != ALGORITHMS[algorithm]:
        raise InvalidInputError(
            f"Upload-Checksum has {len(expected)} bytes, too many or too few for {algorithm}"
        )
    return Checksum(algorithm, expected)


def http_date(at: float) -> str:
    """*at*, seconds since the epoch, as HTTP writes dates (RFC 9110)."""
    return formatdate(at, usegmt=True)


def _text(key: str, encoded: str) -> str:
    try:
        return _decoded(f"Upload-Metadata {key}", encoded).decode()
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"Upload-Metadata {key} is not UTF-8") from error


def _decoded(name: str, encoded: str) -> bytes:
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInputError(f"{name} is not base64") from error
