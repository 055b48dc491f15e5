"""Vendored browser scripts are the published ones, and a tampered package is refused."""

from __future__ import annotations

import hashlib
from types import ModuleType

import pytest

from control_plane.ui.components import speedscope_client, tus_client


@pytest.mark.parametrize("vendored", [tus_client, speedscope_client])
def test_vendored_files_are_what_was_published(vendored: ModuleType) -> None:
    files = [path for path in vendored.FOLDER.iterdir() if path.is_file()]
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    assert found == vendored.SHA256


@pytest.mark.parametrize("vendored", [tus_client, speedscope_client])
def test_another_package_is_refused(vendored: ModuleType) -> None:
    with pytest.raises(ValueError, match="SHA-512"):
        vendored.extracted(b"something else")


def test_speedscope_is_told_where_a_profile_is() -> None:
    address = speedscope_client.address("/api/v1/profiles/ab/speedscope.json", "digits@1 & more")
    assert address == (
        "/assets/speedscope/index.html"
        "#profileURL=%2Fapi%2Fv1%2Fprofiles%2Fab%2Fspeedscope.json&title=digits%401%20%26%20more"
    )
