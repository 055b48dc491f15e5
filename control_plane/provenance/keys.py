"""The key that signs versions, and the public keys that are trusted: files in one folder.

    signing.pem      the private key (PKCS #8), for its owner alone
    signing.pub      its public key (SubjectPublicKeyInfo)
    trusted/<id>.pub public keys of before, whose signatures still count

To rotate the key, move `signing.pem` away, or put another in its place: the next one to need a key makes one
that is missing, and keeps the old public key as trusted.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from control_plane.errors import ConflictError
from serving_agent.contract.provenance import key_id

PRIVATE: Final = "signing.pem"
PUBLIC: Final = "signing.pub"
TRUSTED: Final = "trusted"


@dataclass(frozen=True, slots=True)
class SigningKey:
    """The private key and its public half."""

    id: str
    public: bytes
    """32 bytes."""
    sign: Callable[[bytes], bytes]
    """A message to its 64-byte Ed25519 signature."""


def open_or_create(folder: Path) -> SigningKey:
    """The signing key in *folder*, made there if there is none. Safe for many processes at once.

    Raises ConflictError when others may read it, or when it is no Ed25519 key.
    """
    if not _is_pair(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(folder):
            _complete(folder)
    key = _read_private(folder / PRIVATE)
    public = _raw(key.public_key())
    return SigningKey(key_id(public), public, key.sign)


def trusted(folder: Path) -> tuple[bytes, ...]:
    """Public keys (32 bytes each) whose signatures count: the present one and all of before.

    Raises ConflictError for a file among them that is no Ed25519 public key.
    """
    files = [folder / PUBLIC, *sorted((folder / TRUSTED).glob("*.pub"))]
    return tuple(dict.fromkeys(_read_public(path) for path in files if path.exists()))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes and threads from making a key in *folder* at the same time."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _is_pair(folder: Path) -> bool:
    private, public = folder / PRIVATE, folder / PUBLIC
    if not (private.exists() and public.exists()):
        return False
    return _raw(_read_private(private).public_key()) == _read_public(public)


def _complete(folder: Path) -> None:
    """Make what is missing; a public key that is not the private one's stays trusted."""
    private, public = folder / PRIVATE, folder / PUBLIC
    if not private.exists():
        made = Ed25519PrivateKey.generate()
        _write(private, made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
    if _is_pair(folder):
        return
    if public.exists():
        (folder / TRUSTED).mkdir(mode=0o700, exist_ok=True)  # made safe with the next file in *folder*
        _write(folder / TRUSTED / f"{key_id(_read_public(public))}.pub", public.read_bytes(), 0o644)
    _write(public, _public_pem(_read_private(private).public_key()), 0o644)


def _write(path: Path, content: bytes, mode: int) -> None:
    """Write a whole file of that mode, which nobody sees half of and no power cut takes away."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read_private(path: Path) -> Ed25519PrivateKey:
    seen = path.stat()
    if seen.st_mode & 0o077 or seen.st_uid != os.getuid():
        raise ConflictError(
            f"{path} can be read by others (mode {stat.S_IMODE(seen.st_mode):o}): it signs versions",
            next_step=f"chmod 600 {path}; if somebody may have copied it, move it away to get a new key.",
        )
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _unusable(path) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _unusable(path)
    return key


def _read_public(path: Path) -> bytes:
    try:
        key = load_pem_public_key(path.read_bytes())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _unusable(path) from error
    if not isinstance(key, Ed25519PublicKey):
        raise _unusable(path)
    return _raw(key)


def _unusable(path: Path) -> ConflictError:
    return ConflictError(
        f"{path} holds no Ed25519 key", next_step="Put it back from a copy, or move it away."
    )


def _public_pem(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _raw(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)
