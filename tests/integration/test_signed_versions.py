"""Signed manifests of stored versions, sealed evidence, and agents that refuse what nobody signed."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from control_plane.errors import ConflictError
from control_plane.provenance import keys
from control_plane.registry import session as sessions
from control_plane.registry.artifacts import ArtifactStore
from control_plane.registry.tables import Version
from control_plane.services import endpoints, housekeeping, manifests, registration, versions
from control_plane.services.context import Context
from control_plane.supervisor.up import up
from serving_agent.contract.manifest import Manifest
from serving_agent.contract.provenance import Envelope, Predicate, Provenance
from tests.fakes import models
from tests.fakes.agents import free_port, make_manifest, start_agent
from tests.fakes.control import open_control
from tests.fakes.registry import files, open_home, register

VERDICT = {"decision": "convert", "code": "pickled-weights", "left_out": []}


@pytest.fixture
def ctx(tmp_path: Path) -> Iterator[Context]:
    context = open_home(tmp_path / "home")
    yield context
    context.engine.dispose()


def check(ctx: Context, ref: str) -> manifests.Checked:
    return manifests.check(ctx, versions.get(ctx, ref).id)


def change(ctx: Context, **values: Any) -> None:
    with sessions.write(ctx.engine) as session:
        session.execute(update(Version).values(**values))


def file_of(ctx: Context, ref: str, name: str = "model.bin") -> Path:
    digest = versions.get(ctx, ref).digest
    return ArtifactStore(ctx.settings.artifacts_dir).folder(digest) / name


def overwrite(path: Path, content: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(content)


def test_a_version_is_signed_as_it_is_registered(ctx: Context) -> None:
    register(ctx)
    ref = register(ctx, parent_ref="digits@1", lineage={"run": "r1", "step": 3}, verdict=VERDICT)
    found = versions.get(ctx, ref)
    said = manifests.read(ctx, found.manifest)
    assert [(each.name, each.digest.sha256) for each in said.subject] == [
        (file.path, file.sha256) for file in found.files
    ]
    assert (said.predicate.version, said.predicate.artifact) == ("digits@2", found.digest)
    assert (said.predicate.parent, said.predicate.uploader, said.predicate.gate) == ("digits@1", "ana", "1")
    checked = check(ctx, ref)
    assert (checked.problems, checked.files) == ((), 1)
    assert checked.key_id == keys.open_or_create(ctx.settings.keys_dir).id


def test_lineage_and_verdict_come_back(ctx: Context) -> None:
    lineage = {"run": "grpo-7", "metrics": {"reward": [0.1, None, 1e300]}, "ünï": ["二"]}
    found = versions.get(ctx, register(ctx, lineage=lineage, verdict=VERDICT))
    assert (found.lineage, found.verdict, found.decision) == (lineage, VERDICT, "convert")
    plain = versions.get(ctx, register(ctx))
    assert (plain.lineage, plain.verdict, plain.gate_version, plain.decision) == ({}, None, None, None)


def test_evidence_lives_and_dies_with_its_version(ctx: Context, tmp_path: Path) -> None:
    evidence = files(tmp_path / "original", model=b"the uploaded pickle")
    first = register(ctx, evidence_dir=evidence)
    second = register(ctx, content=b"other", evidence_dir=evidence)
    found = versions.get(ctx, first)
    assert found.evidence_digest == versions.get(ctx, second).evidence_digest
    assert [file.path for file in found.evidence_files] == ["model.bin"]
    store = ArtifactStore(ctx.settings.artifacts_dir)
    assert housekeeping.tidy(ctx, 0.0).artifacts == ()
    versions.delete(ctx, first, actor="ana")
    assert store.holds(str(found.evidence_digest))
    assert not store.holds(found.digest)
    versions.delete(ctx, second, actor="ana")
    assert list(store.digests()) == []


def test_evidence_that_is_served_too_stays_for_those_who_serve_it(ctx: Context, tmp_path: Path) -> None:
    same = files(tmp_path / "original", model=b"weights")
    register(ctx, evidence_dir=same)
    register(ctx, "other")
    digest = versions.get(ctx, "digits@1").digest
    assert versions.get(ctx, "digits@1").evidence_digest == digest
    versions.delete(ctx, "digits@1", actor="ana")
    assert ArtifactStore(ctx.settings.artifacts_dir).holds(digest)
    assert check(ctx, "other@1").problems == ()


def test_versions_of_before_are_signed_once(ctx: Context) -> None:
    register(ctx)
    register(ctx)
    with sessions.write(ctx.engine) as session:
        session.connection().exec_driver_sql("UPDATE versions SET manifest = NULL")
    assert check(ctx, "digits@1").problems == ("it has no signed manifest",)
    assert (manifests.sign_missing(ctx), manifests.sign_missing(ctx)) == (2, 0)
    assert check(ctx, "digits@1").problems == check(ctx, "digits@2").problems == ()


def test_nothing_starts_with_a_key_that_others_can_read(ctx: Context) -> None:
    keys.open_or_create(ctx.settings.keys_dir)
    (ctx.settings.keys_dir / keys.PRIVATE).chmod(0o644)
    settings = ctx.settings.model_copy(update={"web_port": free_port(), "gateway_port": free_port()})
    said: list[str] = []
    with pytest.raises(ConflictError, match="can be read by others"):
        up(settings, said.append)
    with pytest.raises(ConflictError, match="can be read by others"):
        register(ctx)
    assert said == []


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"created_by": "eve"}, "the registry says uploader 'eve', signed is 'ana'"),
        ({"format": "huggingface"}, "the registry says format 'huggingface', signed is 'torchscript'"),
        ({"number": 7}, "the registry says version 'digits@7', signed is 'digits@1'"),
        ({"lineage": {"step": 4}}, "the registry says lineage hash"),
        ({"handler": "text_classification"}, "the registry says serving hash"),
        ({"labels": ["zero"]}, "the registry says serving hash"),
        ({"signature": {"inputs": [], "outputs": []}}, "the registry says serving hash"),
    ],
)
def test_a_changed_row_is_found(ctx: Context, values: dict[str, Any], problem: str) -> None:
    register(ctx, lineage={"step": 3})
    version_id = versions.get(ctx, "digits@1").id
    change(ctx, **values)
    (found,) = manifests.check(ctx, version_id).problems
    assert found.startswith(problem)


def test_how_it_is_served_is_compared_only_where_it_was_signed(
    ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    predicate = manifests._predicate

    def before(session: Session, version: Version) -> Predicate:
        return msgspec.structs.replace(predicate(session, version), serving_sha256=None)

    with monkeypatch.context() as earlier:
        earlier.setattr(manifests, "_predicate", before)
        register(ctx)
    assert check(ctx, "digits@1").problems == ()


def test_the_sealed_original_is_read_too(ctx: Context, tmp_path: Path) -> None:
    register(ctx, evidence_dir=files(tmp_path / "original", model=b"the uploaded pickle"))
    told: list[float] = []
    version = versions.get(ctx, "digits@1")
    assert manifests.check(ctx, version.id, told.append).problems == ()
    served, sealed = version.size_bytes, len(b"the uploaded pickle")
    assert told == pytest.approx([served / (served + sealed), 1.0])
    folder = ArtifactStore(ctx.settings.artifacts_dir).folder(str(version.evidence_digest))
    overwrite(folder / "model.bin", b"another one")
    assert check(ctx, "digits@1").problems == ("sealed original: model.bin holds other bytes",)
    shutil.rmtree(folder)
    (gone,) = check(ctx, "digits@1").problems
    assert gone.startswith("sealed original: Artefact sha256:")


def test_what_a_later_gate_says_is_no_problem(ctx: Context) -> None:
    register(ctx, verdict=VERDICT)
    change(ctx, gate_version="99", verdict={"decision": "refuse", "code": "x", "left_out": []})
    assert check(ctx, "digits@1").problems == ()


def test_changed_missing_and_added_files_are_found(ctx: Context, tmp_path: Path) -> None:
    source = files(tmp_path / "several", a=b"a", b=b"b")
    ref = register(ctx, "several", content=b"1")
    assert ref == "several@1"
    registration.register(
        ctx, model="several", files_dir=source, format="torchscript", handler="tensor",
        signature=models.SCALAR, actor="ana",
    )  # fmt: skip
    first = file_of(ctx, "several@2", "a.bin")
    overwrite(first, b"c")
    file_of(ctx, "several@2", "b.bin").unlink()
    (first.parent / "planted.py").write_text("")
    assert check(ctx, "several@2").problems == (
        "a.bin holds other bytes",
        "b.bin is missing",
        "planted.py does not belong to it",
    )


def test_the_controller_gives_the_agent_what_it_checks(tmp_path: Path) -> None:
    control = open_control(tmp_path / "home", versions=1)
    control.deploy("digits", "digits@1")
    control.run()
    (agent,) = control.platform.agents.values()
    provenance = agent.manifest.provenance
    key = keys.open_or_create(control.ctx.settings.keys_dir)
    assert provenance is not None
    assert provenance.trusted_keys == (base64.b64encode(key.public).decode(),)
    assert (
        msgspec.json.decode(msgspec.json.encode(provenance.envelope))
        == versions.get(control.ctx, "digits@1").manifest
    )
    control.ctx.engine.dispose()


@pytest.mark.parametrize(
    ("manifest", "why"),
    [(None, "digits@1 has no signed manifest"), ({"payloadType": 1}, "manifest of digits@1 cannot be read")],
)
def test_no_agent_starts_without_a_manifest(tmp_path: Path, manifest: Any, why: str) -> None:
    control = open_control(tmp_path / "home", versions=1)
    control.deploy("digits", "digits@1")
    with sessions.write(control.ctx.engine) as session:
        session.query(Version).one().manifest = manifest
    control.run(2)
    assert control.platform.agents == {}
    assert why in str(endpoints.get(control.ctx, "digits").agents[0].reason)
    control.ctx.engine.dispose()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.save_torchscript(models.digits_model(), tmp_path_factory.mktemp("program"))


def served(ctx: Context, program: Path) -> Manifest:
    """The manifest of an agent for a signed version of *program*."""
    ref = registration.register(
        ctx, model="digits", files_dir=program, format="torchscript", handler="tensor",
        signature=models.DIGITS, actor="ana",
    )  # fmt: skip
    found = versions.get(ctx, ref)
    trusted = keys.trusted(ctx.settings.keys_dir)
    return make_manifest(
        file_of(ctx, ref, ".").resolve(),
        models.DIGITS,
        model="digits",
        version=1,
        digest=found.digest,
        provenance=Provenance(
            envelope=msgspec.convert(found.manifest, Envelope),
            trusted_keys=tuple(base64.b64encode(key).decode() for key in trusted),
        ),
    )


def failure(manifest: Manifest, folder: Path) -> dict[str, Any]:
    with start_agent(manifest, folder, wait=False) as agent:
        assert agent.process.wait(60) == 3, agent.log
        return dict(json.loads(agent.failure_path.read_bytes()))


def test_an_agent_serves_what_was_signed(ctx: Context, program: Path, tmp_path: Path) -> None:
    with start_agent(served(ctx, program), tmp_path / "agent") as agent:
        assert list(agent.status()["timings_s"]) == ["verify", "import", "load", "warm"]


def flip(ctx: Context, manifest: Manifest) -> Manifest:
    """One bit in the middle of the weights, size and everything else as before."""
    path = manifest.artifact_dir / "model.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()  # the test's own program shares its bytes
    path.write_bytes(content)
    return manifest


def plant(ctx: Context, manifest: Manifest) -> Manifest:
    (manifest.artifact_dir / "extra.pt").write_bytes(b"x")
    return manifest


def distrust(ctx: Context, manifest: Manifest) -> Manifest:
    assert manifest.provenance is not None
    stranger = msgspec.structs.replace(manifest.provenance, trusted_keys=())
    return msgspec.structs.replace(manifest, provenance=stranger)


def exchange(ctx: Context, manifest: Manifest) -> Manifest:
    """A genuine statement, of another version."""
    return msgspec.structs.replace(manifest, version=2)


@pytest.mark.parametrize(
    ("tamper", "reason"),
    [
        (flip, "model.pt is missing or was changed after it was signed"),
        (plant, "extra.pt is in the version's folder, but nobody signed it"),
        (distrust, "the version cannot be trusted: the manifest is not signed by a trusted key"),
        (exchange, "the signed manifest is of another version: digits@1, not digits@2"),
    ],
)
def test_an_agent_refuses_what_was_not_signed(
    ctx: Context, program: Path, tmp_path: Path, tamper: Any, reason: str
) -> None:
    manifest = tamper(ctx, served(ctx, program))
    found = failure(manifest, tmp_path / "agent")
    assert found["reason"].startswith(reason)
    assert found["phase"] == "starting"
