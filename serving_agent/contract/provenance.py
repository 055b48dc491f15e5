"""The signed statement of what a version is made of, and how both sides check it.

The statement is an in-toto Statement v1 (https://github.com/in-toto/attestation, spec/v1): its subjects are
the artefact's files with their sha256, its predicate says what they are a version of. It travels in a DSSE
envelope (https://github.com/secure-systems-lab/dsse, v1.0.2), signed with Ed25519 (RFC 8032).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable

import msgspec

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
PREDICATE_TYPE = "urn:signalbox:version:1"


class UntrustedError(Exception):
    """The envelope or its statement cannot be relied on; the message says why in one sentence."""


class EnvelopeSignature(msgspec.Struct, frozen=True, kw_only=True):
    """One signature of an envelope."""

    keyid: str
    sig: str
    """Base64 of the 64 bytes of the Ed25519 signature."""


class Envelope(msgspec.Struct, frozen=True, kw_only=True, rename={"payload_type": "payloadType"}):
    """A DSSE envelope."""

    payload_type: str
    payload: str
    """Base64 of the statement's JSON."""
    signatures: tuple[EnvelopeSignature, ...]


class Provenance(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an agent is given to check its artefact with."""

    envelope: Envelope
    trusted_keys: tuple[str, ...]
    """Base64 of the 32 bytes of each Ed25519 public key whose signature counts."""


class FileDigest(msgspec.Struct, frozen=True, kw_only=True):
    """Digests of one file."""

    sha256: str
    """Hexadecimal."""


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """One file of the artefact."""

    name: str
    """Its path in the artefact, with forward slashes."""
    digest: FileDigest


class Predicate(msgspec.Struct, frozen=True, kw_only=True):
    """What the files are a version of."""

    version: str
    """`model@N`."""
    artifact: str
    """`sha256:<hex>`."""
    format: str
    evidence: str | None
    """`sha256:<hex>` of the sealed original upload."""
    parent: str | None
    """`model@N` that it was made from."""
    gate: str | None
    """The gate that had judged it when it was signed."""
    uploader: str
    lineage_sha256: str
    """Hexadecimal, of the lineage as canonical JSON."""
    created_at: float
    """UTC seconds since the epoch."""
    serving_sha256: str | None = None
    """Hexadecimal, of handler, signature and labels as canonical JSON; None in the oldest manifests."""


class Statement(msgspec.Struct, frozen=True, kw_only=True, rename={"predicate_type": "predicateType"}):
    """An in-toto statement of ours."""

    type: str = msgspec.field(name="_type")
    subject: tuple[Subject, ...]
    predicate_type: str
    predicate: Predicate


def key_id(public_key: bytes) -> str:
    """Name of an Ed25519 public key (its 32 bytes): the first 16 digits of its sha256."""
    return hashlib.sha256(public_key).hexdigest()[:16]


def pre_authentication(payload_type: str, payload: bytes) -> bytes:
    """The bytes that are signed: DSSE's PAE, which binds the payload to its type."""
    name = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(name), name, len(payload), payload)


def verified(envelope: Envelope, trusted_keys: Iterable[bytes]) -> Statement:
    """Return the statement that a trusted key has signed.

    trusted_keys: the 32 bytes of each public key. Raises UntrustedError.
    """
    if envelope.payload_type != PAYLOAD_TYPE:
        raise UntrustedError("the signed manifest is of an unknown kind")
    payload = _decoded(envelope.payload)
    _check_signed(envelope, payload, {key_id(key): key for key in trusted_keys})
    try:
        statement = msgspec.json.decode(payload, type=Statement)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UntrustedError(f"the signed manifest cannot be read: {error}") from None
    if (statement.type, statement.predicate_type) != (STATEMENT_TYPE, PREDICATE_TYPE):
        raise UntrustedError("the signed manifest is of an unknown kind")
    return statement


def _check_signed(envelope: Envelope, payload: bytes, trusted: dict[str, bytes]) -> None:
    known = [each for each in envelope.signatures if each.keyid in trusted]
    if not known:
        named = ", ".join(each.keyid for each in envelope.signatures) or "none"
        raise UntrustedError(f"the manifest is not signed by a trusted key (key {named[:80]})")
    message = pre_authentication(envelope.payload_type, payload)
    if not any(_holds(trusted[each.keyid], each.sig, message) for each in known):
        raise UntrustedError("the signature of the manifest does not fit it: one of them was changed")


def _holds(key: bytes, signature: str, message: bytes) -> bool:
    # imported here: agents read their manifest, and most of them answer /health, before it is needed
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(key).verify(_decoded(signature), message)
    except InvalidSignature:
        return False
    return True


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise UntrustedError("the signed manifest is not base64") from None
