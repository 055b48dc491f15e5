"""What an agent is told when it starts: its row and its version as a manifest."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import psutil
from sqlalchemy.orm import Session

from control_plane.config import Settings
from control_plane.domain.endpoint import ServingSpec
from control_plane.errors import ConflictError, NotFoundError
from control_plane.provenance import keys
from control_plane.registry import endpoints
from control_plane.registry.artifacts import ArtifactStore
from control_plane.registry.tables import Agent, Endpoint, Examples, Version
from serving_agent.contract.manifest import Limits, Manifest
from serving_agent.contract.provenance import Envelope, Provenance
from serving_agent.contract.signature import Signature


def manifest(db: Session, settings: Settings, agent_id: str) -> Manifest:
    """Everything the agent has to know.

    Raises NotFoundError when its row, version, files or signed manifest are gone, ConflictError when the
    manifest cannot be read.
    """
    row = db.get(Agent, agent_id)
    endpoint = db.get(Endpoint, row.endpoint_id) if row else None
    version = db.get(Version, row.version_id) if row else None
    if row is None or endpoint is None or version is None:
        raise NotFoundError(f"agent {agent_id}, its endpoint or its version is gone")
    store = ArtifactStore(settings.artifacts_dir)
    if not store.holds(version.artifact_digest):
        raise NotFoundError(f"the files of {version.ref} are missing from the artefact store")
    spec = endpoints.spec_of(row)
    return Manifest(
        agent_id=row.id,
        endpoint=endpoint.name,
        model=version.model.name,
        version=version.number,
        digest=version.artifact_digest,
        format=version.format,
        handler=spec.handler,
        artifact_dir=store.folder(version.artifact_digest),
        signature=msgspec.convert(version.signature, Signature),
        rest_address=row.rest_address or "",
        grpc_address=row.grpc_address or "",
        device=spec.device,
        threads=spec.threads,
        labels=tuple(version.labels),
        allowed_handlers=settings.handlers,
        limits=Limits(memory_bytes=memory_limit(settings, spec), drain_s=settings.drain_timeout_s),
        options=spec.options,
        provenance=_provenance(settings, version),
        otlp_endpoint=settings.otlp_endpoint or None,
    )


def _provenance(settings: Settings, version: Version) -> Provenance:
    """The version's signed statement and whose signature counts.

    Raises NotFoundError where there is none, ConflictError where it or a key cannot be read.
    """
    if version.manifest is None:
        raise NotFoundError(f"{version.ref} has no signed manifest")
    try:
        envelope = msgspec.convert(version.manifest, Envelope)
    except msgspec.ValidationError as error:
        raise ConflictError(f"the signed manifest of {version.ref} cannot be read: {error}") from error
    trusted = keys.trusted(settings.keys_dir)
    return Provenance(
        envelope=envelope, trusted_keys=tuple(base64.b64encode(key).decode() for key in trusted)
    )


def examples(db: Session, agent_id: str) -> dict[str, Any] | None:
    """The version's first example input as one row a tensor, by name; None when it has none that fits."""
    row = db.get(Agent, agent_id)
    version = db.get(Version, row.version_id) if row else None
    kept = db.get(Examples, version.id) if version else None
    if version is None or kept is None or not kept.items:
        return None
    inputs = kept.items[0]["inputs"]
    names = {tensor["name"] for tensor in version.signature["inputs"]}
    return {name: [value] for name, value in inputs.items()} if set(inputs) == names else None


def memory_limit(settings: Settings, spec: ServingSpec) -> int:
    """Bytes of memory one agent may use: the endpoint's own limit, else a share of the machine's."""
    return spec.memory_bytes or int(psutil.virtual_memory().total * settings.agent_memory)
