"""The manifest: everything one serving agent is told when it starts, as one JSON file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from serving_agent.contract.options import ServingOptions
from serving_agent.contract.provenance import Provenance
from serving_agent.contract.signature import Signature

NanPolicy = Literal["reject", "pass"]


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Bounds an agent enforces on itself and on its clients."""

    max_request_bytes: int = 64 * 1024 * 1024
    """Largest request body or gRPC message, in bytes."""
    max_queue: int = 256
    """Requests waiting for the inference thread before new ones are answered 503."""
    request_timeout_s: float = 60.0
    """Time from arrival to answer before a request is answered 504."""
    max_elements: int = 2**28
    """Most elements of one tensor; checked against the declared shape before anything is allocated."""
    memory_bytes: int | None = None
    """Largest private memory of the agent's process (RLIMIT_DATA); None for no limit."""
    drain_s: float = 30.0
    """After SIGTERM: longest wait for running requests before the process ends."""
    drain_grace_s: float = 0.5
    """After SIGTERM: how long new requests are still answered while clients learn to go elsewhere."""


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What to serve, where to listen, and under which limits.

    `model_name` in the protocol is the *endpoint*: the stable name that clients call.
    """

    agent_id: str
    endpoint: str
    model: str
    version: int
    digest: str
    """`sha256:<hex>` of the artefact; named in every reply."""
    format: str
    """A name of `serving_agent.formats.catalog`."""
    handler: str
    """A name of `serving_agent.handlers.catalog`, or `module:Class` from `allowed_handlers`."""
    artifact_dir: Path
    """Folder that holds the artefact's files, read-only to the agent."""
    signature: Signature
    rest_address: str
    """`unix:/path` or `127.0.0.1:port`."""
    grpc_address: str
    """`unix:/path` or `127.0.0.1:port`."""
    device: str = "auto"
    """`auto`, `cpu` or `cuda:N`."""
    threads: int = 1
    """CPU threads for one inference."""
    labels: tuple[str, ...] = ()
    """Class names, index by index, where the model is a classifier."""
    nan_policy: NanPolicy = "reject"
    """Whether NaN and Inf in floating-point inputs are refused with 400 or passed to the model."""
    allowed_handlers: tuple[str, ...] = ()
    limits: Limits = Limits()
    options: ServingOptions = ServingOptions()
    examples: Path | None = None
    """JSON file with example inputs of one row, by input name, in `/predict`'s form: warm-up and the health
    checker run them; None for made-up ones."""
    provenance: Provenance | None = None
    """The version's signed statement, which the artefact's files must fit before they are loaded; None for
    files that nobody vouches for."""
    otlp_endpoint: str | None = None
    """Where OpenTelemetry traces go (OTLP over HTTP), e.g. `http://127.0.0.1:4318`; None for no traces."""

    @property
    def version_ref(self) -> str:
        """`model@N`, the version's name everywhere."""
        return f"{self.model}@{self.version}"


def read(path: Path) -> Manifest:
    """Read a manifest file. Raises msgspec.ValidationError or OSError."""
    return msgspec.json.decode(path.read_bytes(), type=Manifest, dec_hook=_decode_path)


def write(manifest: Manifest, path: Path) -> None:
    """Write *manifest* to *path* as JSON."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(manifest, enc_hook=_encode_path), indent=2))


def _encode_path(value: Any) -> str:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(f"a manifest cannot hold {type(value).__name__}")


def _decode_path(kind: type, value: Any) -> Path:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise NotImplementedError(f"a manifest cannot hold {kind.__name__}")
