"""Signing keys, canonical JSON and signed statements."""

from __future__ import annotations

import base64
import json
import os
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.errors import ConflictError
from control_plane.provenance import keys
from control_plane.provenance.statement import canonical, hash_of, sealed, statement
from serving_agent.contract.provenance import (
    PAYLOAD_TYPE,
    Envelope,
    Predicate,
    Statement,
    UntrustedError,
    key_id,
    pre_authentication,
    verified,
)

PREDICATE = Predicate(
    version="digits@2",
    artifact="sha256:" + "ab" * 32,
    format="huggingface",
    evidence=None,
    parent="digits@1",
    gate="1",
    uploader="ana",
    lineage_sha256=hash_of({}),
    created_at=1_700_000_000.25,
)
SAID = statement({"model.safetensors": "00" * 32, "config.json": "11" * 32}, PREDICATE)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> keys.SigningKey:
    return keys.open_or_create(tmp_path_factory.mktemp("keys"))


def envelope(document: dict[str, Any]) -> Envelope:
    return msgspec.convert(document, Envelope)


@given(JSON)
def test_canonical_json_is_one_text_of_its_value(value: Any) -> None:
    text = canonical(value)
    assert json.loads(text) == value
    assert canonical(json.loads(text)) == text


@given(st.dictionaries(st.text(), st.integers(), min_size=2))
def test_the_order_of_keys_changes_nothing(value: dict[str, int]) -> None:
    assert hash_of(dict(reversed(value.items()))) == hash_of(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": -float("inf")}])
def test_what_is_no_json_has_no_canonical_text(value: Any) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical(value)


def test_the_signed_bytes_are_those_of_dsse() -> None:
    """The example of the DSSE v1.0.2 protocol page."""
    assert (
        pre_authentication("http://example.com/HelloWorld", b"hello world")
        == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_a_statement_comes_back_as_it_was_signed(key: keys.SigningKey) -> None:
    document = sealed(SAID, key)
    assert verified(envelope(document), [key.public]) == SAID
    payload = json.loads(base64.b64decode(document["payload"]))
    assert payload["_type"] == "https://in-toto.io/Statement/v1"
    assert [each["name"] for each in payload["subject"]] == ["config.json", "model.safetensors"]
    assert document["signatures"][0]["keyid"] == key.id == key_id(key.public)


@given(data=st.data())
def test_no_changed_bit_passes(data: st.DataObject, key: keys.SigningKey) -> None:
    document = sealed(SAID, key)
    signature = document["signatures"][0]
    holder, name = data.draw(st.sampled_from([(document, "payload"), (signature, "sig")]))
    raw = bytearray(base64.b64decode(holder[name]))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    holder[name] = base64.b64encode(raw).decode()
    with pytest.raises(UntrustedError, match="was changed"):
        verified(envelope(document), [key.public])


def test_an_unknown_key_does_not_count(key: keys.SigningKey, tmp_path: Path) -> None:
    other = keys.open_or_create(tmp_path)
    for trusted in ([], [other.public]):
        with pytest.raises(UntrustedError, match=f"not signed by a trusted key.*{key.id}"):
            verified(envelope(sealed(SAID, key)), trusted)


def test_a_foreign_signature_under_a_known_name_does_not_count(key: keys.SigningKey, tmp_path: Path) -> None:
    document = sealed(SAID, keys.open_or_create(tmp_path))
    document["signatures"][0]["keyid"] = key.id
    with pytest.raises(UntrustedError, match="does not fit"):
        verified(envelope(document), [key.public])


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("payloadType", "text/plain", "unknown kind"),
        ("payload", "%%%", "not base64"),
        ("signatures", [], "key none"),
    ],
)
def test_a_broken_envelope_is_refused(key: keys.SigningKey, field: str, value: Any, why: str) -> None:
    with pytest.raises(UntrustedError, match=why):
        verified(envelope({**sealed(SAID, key), field: value}), [key.public])


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"_type": "https://example.com/other"}, "cannot be read"),
        ({**msgspec.to_builtins(SAID), "predicateType": "urn:other"}, "unknown kind"),
        ({**msgspec.to_builtins(SAID), "subject": [{"name": 1}]}, "cannot be read"),
    ],
)
def test_a_signed_text_of_another_kind_is_refused(
    key: keys.SigningKey, said: dict[str, Any], why: str
) -> None:
    payload = canonical(said)
    signature = key.sign(pre_authentication(PAYLOAD_TYPE, payload))
    document = {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": key.id, "sig": base64.b64encode(signature).decode()}],
    }
    with pytest.raises(UntrustedError, match=why):
        verified(envelope(document), [key.public])


@given(st.dictionaries(st.text(min_size=1), st.from_regex(r"[0-9a-f]{64}", fullmatch=True)))
def test_every_file_is_a_subject_in_one_order(files: dict[str, str]) -> None:
    said: Statement = statement(files, PREDICATE)
    assert {each.name: each.digest.sha256 for each in said.subject} == files
    assert statement(dict(reversed(files.items())), PREDICATE) == said


def test_a_key_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(lambda _: keys.open_or_create(folder), range(16)))
    assert {each.id for each in opened} == {opened[0].id}
    assert stat.S_IMODE((folder / keys.PRIVATE).stat().st_mode) == 0o600
    assert sorted(path.name for path in folder.iterdir()) == [keys.PRIVATE, keys.PUBLIC]
    assert keys.trusted(folder) == (opened[0].public,)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o777])
def test_a_key_that_others_can_read_is_not_used(tmp_path: Path, mode: int) -> None:
    keys.open_or_create(tmp_path)
    (tmp_path / keys.PRIVATE).chmod(mode)
    with pytest.raises(ConflictError, match="can be read by others") as caught:
        keys.open_or_create(tmp_path)
    assert "chmod 600" in str(caught.value.next_step)


def test_a_rotated_key_stays_trusted(tmp_path: Path) -> None:
    old = keys.open_or_create(tmp_path)
    document = sealed(SAID, old)
    (tmp_path / keys.PRIVATE).unlink()
    new = keys.open_or_create(tmp_path)
    assert new.id != old.id
    assert keys.trusted(tmp_path) == (new.public, old.public)
    assert verified(envelope(document), keys.trusted(tmp_path)) == SAID
    (tmp_path / keys.TRUSTED / f"{old.id}.pub").unlink()
    with pytest.raises(UntrustedError):
        verified(envelope(document), keys.trusted(tmp_path))


def test_a_key_put_in_the_place_of_another_is_trusted_with_it(tmp_path: Path) -> None:
    """signing.pub would else be another key's, and no version signed from now on would be trusted."""
    folder = tmp_path / "keys"
    old, other = keys.open_or_create(folder), keys.open_or_create(tmp_path / "other")
    shutil.copy2(tmp_path / "other" / keys.PRIVATE, folder / keys.PRIVATE)
    new = keys.open_or_create(folder)
    assert new.id == other.id
    assert keys.trusted(folder) == (new.public, old.public)
    assert keys.open_or_create(folder).id == new.id
    assert [path.name for path in (folder / keys.TRUSTED).iterdir()] == [f"{old.id}.pub"]


def test_a_new_key_survives_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each rename its folder is synced."""
    synced: list[Path] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        synced.append(Path(f"/proc/self/fd/{handle}").readlink())
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    keys.open_or_create(tmp_path)
    assert synced == [
        tmp_path / f".{keys.PRIVATE}.new", tmp_path, tmp_path / f".{keys.PUBLIC}.new", tmp_path,
    ]  # fmt: skip


def test_what_is_no_key_is_named(tmp_path: Path) -> None:
    keys.open_or_create(tmp_path)
    (tmp_path / keys.PUBLIC).write_text("nonsense")
    with pytest.raises(ConflictError, match=r"signing\.pub holds no Ed25519 key"):
        keys.trusted(tmp_path)
    (tmp_path / keys.PRIVATE).write_text("nonsense")
    with pytest.raises(ConflictError, match=r"signing\.pem holds no Ed25519 key"):
        keys.open_or_create(tmp_path)


def test_a_lost_public_key_is_written_again(tmp_path: Path) -> None:
    key = keys.open_or_create(tmp_path)
    (tmp_path / keys.PUBLIC).unlink()
    assert keys.open_or_create(tmp_path).id == key.id
    assert keys.trusted(tmp_path) == (key.public,)
