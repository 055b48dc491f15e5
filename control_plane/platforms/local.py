"""Agents as processes of this machine.

Each has its own session, its manifest and failure report in `agents/<id>/`, its Unix sockets in the run
folder and its output in `logs/agents/<id>.log`. It is found by the manifest path on its command line, so a
controller that takes over finds the agents of the one before it.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from functools import update_wrapper
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import msgspec
import psutil

from control_plane.config import Settings, prepare_home
from control_plane.errors import UnavailableError
from control_plane.platforms import exits, log_files
from control_plane.platforms.base import TAIL_LINES, Addresses, AgentExit, AgentProcess
from control_plane.platforms.exit_watch import ExitWatch
from serving_agent.contract import manifest as manifests
from serving_agent.contract.manifest import Manifest

logger = logging.getLogger(__name__)

MANIFEST: Final = "manifest.json"
EXAMPLES: Final = "examples.json"
FAILURE: Final = "manifest.json.failure.json"


P = ParamSpec("P")
R = TypeVar("R")


def _in_turn(
    method: Callable[Concatenate[LocalPlatform, P], R],
) -> Callable[Concatenate[LocalPlatform, P], R]:
    """Let one thread at a time call the platform."""

    def locked(self: LocalPlatform, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._turn:
            return method(self, *args, **kwargs)

    update_wrapper(locked, method)
    return locked


def create(settings: Settings) -> LocalPlatform:
    """The platform of this machine, for the home folder that *settings* name."""
    prepare_home(settings)
    return LocalPlatform(settings)


class LocalPlatform:
    """Starts, finds and ends agent processes. Thread-safe: one call at a time."""

    def __init__(self, settings: Settings) -> None:
        self._agents_dir = settings.agents_dir
        self._logs_dir = settings.logs_dir / "agents"
        self._run_dir = settings.run_dir
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._started: dict[str, AgentProcess] = {}
        self._exit_codes: dict[str, int] = {}
        self._asked: set[tuple[str, int]] = set()
        self._inspected: dict[int, float] = {}
        self._watch: ExitWatch | None = None
        self._turn = threading.RLock()

    def addresses(self, agent_id: str) -> Addresses:
        """Its Unix sockets."""
        return Addresses(f"unix:{self._socket(agent_id, 'rest')}", f"unix:{self._socket(agent_id, 'grpc')}")

    @_in_turn
    def running(self) -> Mapping[str, AgentProcess]:
        """Processes with a manifest of this home on their command line; children that ended are reaped."""
        found: dict[str, AgentProcess] = {}
        processes = list(psutil.process_iter())
        present = {process.pid for process in processes}
        self._inspected = {pid: at for pid, at in self._inspected.items() if pid in present}
        for process in processes:
            agent = self._agent_of(process)
            if agent is not None and agent.agent_id not in found:
                found[agent.agent_id] = agent
        self._reap()
        # a child about to end has no command line any more, but runs until it can be collected
        found.update({agent_id: self._started[agent_id] for agent_id in self._children})
        if self._watch is not None:
            self._watch.follow(agent.pid for agent in found.values())
        return found

    @_in_turn
    def start(self, manifest: Manifest, examples: Mapping[str, Any] | None = None) -> AgentProcess:
        """Start `python -m serving_agent` in a session of its own, unless it runs already."""
        present = self.running().get(manifest.agent_id)
        if present is not None:
            return present
        try:
            child = self._spawn(manifest, examples)
        except OSError as error:
            raise UnavailableError(
                f"the agent's process cannot be started: {error.strerror}",
                next_step="Free memory or disk space on this machine.",
            ) from error
        process = AgentProcess(manifest.agent_id, child.pid, _created_at(child.pid))
        self._children[manifest.agent_id], self._started[manifest.agent_id] = child, process
        self._exit_codes.pop(manifest.agent_id, None)
        if self._watch is not None:
            self._watch.follow((child.pid,))
        return process

    @_in_turn
    def stop(self, agent_id: str) -> None:
        """Send SIGTERM once; asking again does not hurry the agent."""
        agent = self.running().get(agent_id)
        if agent is None or (agent_id, agent.pid) in self._asked:
            return
        self._asked.add((agent_id, agent.pid))
        _send(agent.pid, signal.SIGTERM)

    @_in_turn
    def kill(self, agent_id: str) -> None:
        """Send SIGKILL to the agent's whole session."""
        agent = self.running().get(agent_id)
        if agent is None:
            return
        try:
            os.killpg(agent.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            _send(agent.pid, signal.SIGKILL)

    @_in_turn
    def exit_of(self, agent_id: str) -> AgentExit | None:
        """The agent's own failure report if it wrote one, else its exit code in words."""
        self._reap()
        if agent_id in self._children:
            return None
        reason = self._reported_failure(agent_id)
        code = self._exit_codes.get(agent_id)
        if reason is None and code is None:
            return None
        return AgentExit(reason or exits.in_words(code), code)

    def log_tail(self, agent_id: str, lines: int = TAIL_LINES) -> tuple[str, ...]:
        """The end of `logs/agents/<id>.log`."""
        return log_files.tail(self._log(agent_id), lines)

    @_in_turn
    def forget(self, agent_id: str) -> None:
        """Remove its folder, sockets and log; a running agent is left alone."""
        if agent_id in self.running():
            return
        shutil.rmtree(self._agents_dir / agent_id, ignore_errors=True)
        log = self._log(agent_id)
        for path in (
            self._socket(agent_id, "rest"),
            self._socket(agent_id, "grpc"),
            log,
            log.with_name(f"{log.name}.1"),
        ):
            path.unlink(missing_ok=True)
        self._exit_codes.pop(agent_id, None)

    def watch(self, on_exit: Callable[[], None]) -> None:
        """Follow the agents' processes by pidfd where the system has it (Linux); else ticks find out."""
        self._watch = ExitWatch.start(on_exit)

    def tidy(self) -> None:
        """Cut logs that grew too long."""
        for path in self._logs_dir.glob("*.log"):
            if log_files.bound(path):
                logger.info("log %s was longer than allowed; its older part is in %s.1", path.name, path.name)

    def _spawn(self, manifest: Manifest, examples: Mapping[str, Any] | None) -> subprocess.Popen[bytes]:
        folder = self._agents_dir / manifest.agent_id
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / MANIFEST
        (folder / FAILURE).unlink(missing_ok=True)
        manifests.write(_with_examples(manifest, examples, folder), path)
        output = log_files.open_for(self._log(manifest.agent_id))
        try:
            return subprocess.Popen(  # noqa: S603  our own interpreter and module
                [sys.executable, "-m", "serving_agent", "--manifest", str(path)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        finally:
            os.close(output)

    def _agent_of(self, process: psutil.Process) -> AgentProcess | None:
        """The agent that *process* is, if it is one of this home and leads its session (no fork)."""
        try:
            created = process.create_time()
            if self._inspected.get(process.pid) == created:
                return None
            agent_id = self._agent_id(process.cmdline())
            if agent_id is None:
                if process.pid not in self._child_pids():
                    self._inspected[process.pid] = created
                return None
            if process.status() == psutil.STATUS_ZOMBIE or os.getsid(process.pid) != process.pid:
                return None
            return AgentProcess(agent_id, process.pid, created)
        except (psutil.Error, ProcessLookupError):
            return None

    def _agent_id(self, command: list[str]) -> str | None:
        if "serving_agent" not in command or "--manifest" not in command[:-1]:
            return None
        path = Path(command[command.index("--manifest") + 1])
        return path.parent.name if path.parent.parent == self._agents_dir else None

    def _child_pids(self) -> set[int]:
        return {child.pid for child in self._children.values()}

    def _reap(self) -> None:
        for agent_id, child in list(self._children.items()):
            code = child.poll()
            if code is not None:
                self._exit_codes[agent_id] = code
                del self._children[agent_id], self._started[agent_id]

    def _reported_failure(self, agent_id: str) -> str | None:
        try:
            report = json.loads((self._agents_dir / agent_id / FAILURE).read_bytes())
            return str(report["reason"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _log(self, agent_id: str) -> Path:
        return self._logs_dir / f"{agent_id}.log"

    def _socket(self, agent_id: str, kind: str) -> Path:
        return self._run_dir / f"{agent_id}.{kind}"


def _with_examples(manifest: Manifest, examples: Mapping[str, Any] | None, folder: Path) -> Manifest:
    """*manifest* that names the file of its example inputs, which is written into *folder*."""
    path = folder / EXAMPLES
    if examples is None:
        path.unlink(missing_ok=True)
        return manifest
    path.write_bytes(msgspec.json.encode(examples))
    return msgspec.structs.replace(manifest, examples=path)


def _created_at(pid: int) -> float:
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return 0.0


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        logger.debug("process %d is gone already", pid)
