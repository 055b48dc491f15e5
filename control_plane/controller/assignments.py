"""What an agent is told when it starts: its row and its version as a manifest."""

from __future__ import annotations

from typing import Any

import msgspec
import psutil
from sqlalchemy.orm import Session

from control_plane.config import Settings
from control_plane.domain.endpoint import ServingSpec
from control_plane.errors import NotFoundError
from control_plane.registry import endpoints
from control_plane.registry.artifacts import ArtifactStore
from control_plane.registry.tables import Agent, Endpoint, Examples, Version
from serving_agent.contract.manifest import Limits, Manifest
from serving_agent.contract.signature import Signature


def manifest(db: Session, settings: Settings, agent_id: str) -> Manifest:
    """Everything the agent has to know. Raises NotFoundError when its row, version or files are gone."""
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
        otlp_endpoint=settings.otlp_endpoint or None,
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
