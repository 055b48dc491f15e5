"""The vendored browser script is the published one, and a tampered package is refused."""

from __future__ import annotations

import hashlib

import pytest

from control_plane.ui.components import tus_client


def test_vendored_files_are_what_was_published() -> None:
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in tus_client.FOLDER.iterdir()}
    assert found == tus_client.SHA256


def test_another_package_is_refused() -> None:
    with pytest.raises(ValueError, match="SHA-512"):
        tus_client.extracted(b"something else")
