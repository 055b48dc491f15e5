"""Before anything of a version is loaded: are its files, byte for byte, those that somebody vouched for?

Every file is read and hashed at every start, whatever its size: what is mapped afterwards lies in the page
cache already. Files are hashed side by side; the caller imports torch meanwhile.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from serving_agent.contract.manifest import Manifest
from serving_agent.contract.provenance import Provenance, Statement, Subject, UntrustedError, verified
from serving_agent.errors import StartError
from serving_agent.formats.base import Format

MAX_THREADS: Final = 4
"""Files hashed at the same time."""


@contextmanager
def verified_meanwhile(manifest: Manifest) -> Iterator[None]:
    """Check the version's files while the body runs; returns once they have proved right.

    Raises StartError where they are not those that a trusted key signed for this version. Does nothing for a
    manifest without provenance.
    """
    if manifest.provenance is None:
        yield
        return
    with ThreadPoolExecutor(1, "verify") as pool:
        checked = pool.submit(check, manifest, manifest.provenance)
        yield
        checked.result()


def check_native(manifest: Manifest, format_: Format) -> None:
    """Refuse machine code that nobody vouches for: opening it is running it. Raises StartError."""
    if format_.is_native and manifest.provenance is None:
        raise StartError(
            f"{format_.title} artefacts hold native code and are opened only with a signed manifest, which "
            "this version has not; have Signalbox make the variant, which signs it"
        )


def check(manifest: Manifest, provenance: Provenance) -> None:
    """Check signature, statement and every file. Raises StartError."""
    try:
        statement = verified(provenance.envelope, map(base64.b64decode, provenance.trusted_keys))
    except UntrustedError as error:
        raise StartError(f"the version cannot be trusted: {error}") from error
    _check_meant(manifest, statement)
    _check_files(manifest.artifact_dir, statement.subject)


def _check_meant(manifest: Manifest, statement: Statement) -> None:
    """Refuse the statement of another version: its files may be genuine, but nobody vouched for them here."""
    said = statement.predicate
    told = {"version": manifest.version_ref, "artifact": manifest.digest, "format": manifest.format}
    for name, value in told.items():
        if getattr(said, name) != value:
            raise StartError(f"the signed manifest is of another {name}: {getattr(said, name)}, not {value}")


def _check_files(folder: Path, subjects: tuple[Subject, ...]) -> None:
    strangers = _files_of(folder) - {subject.name for subject in subjects}
    if strangers:
        raise StartError(f"{_shown(strangers)} is in the version's folder, but nobody signed it")
    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1), "hash") as pool:
        changed = {name for name in pool.map(partial(_name_if_changed, folder), subjects) if name}
    if changed:
        raise StartError(f"{_shown(changed)} is missing or was changed after it was signed")


def _name_if_changed(folder: Path, subject: Subject) -> str | None:
    try:
        with (folder / subject.name).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return subject.name
    return None if found == subject.digest.sha256 else subject.name


def _files_of(folder: Path) -> set[str]:
    """Names of everything in *folder* that is not a folder itself."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }


def _shown(names: Iterable[str]) -> str:
    first, *others = sorted(names)
    return f"{first} (and {len(others)} more)" if others else first
