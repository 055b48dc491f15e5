"""The supervisor's loop: sleeps until a process ends, a signal comes or something is due."""

from __future__ import annotations

import os
import queue
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Final

import psutil
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from control_plane.config import Settings
from control_plane.controller import shutdown
from control_plane.controller.lease import Lease, LeaseLostError, holder_name
from control_plane.errors import SignalboxError, UnavailableError
from control_plane.gateway.base import Gateway
from control_plane.platforms import exits, log_files
from control_plane.platforms.base import Platform
from control_plane.supervisor import bond, children, readiness
from control_plane.supervisor.children import Child

END_PATIENCE_S: Final = 10.0
"""For each of our own processes after SIGTERM."""
ENVOY_PATIENCE_S: Final = 5.0
HURRY_S: Final = 1.0
"""Patience for everything that is left after a second Ctrl-C."""
PROBE_EVERY_S: Final = 0.1
TIDY_EVERY_S: Final = 60.0
LOOP_FAILURES: Final = 3
"""After this many short lives in a row the end of the log is shown."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Ended:
    """A supervised process is gone."""

    role: str
    pid: int
    code: int | None


@dataclass(frozen=True, slots=True)
class Signalled:
    """The operator wants an end."""


@dataclass(frozen=True, slots=True)
class Stir:
    """Some other child ended: an orphan to reap, or an agent."""


Event = Ended | Signalled | Stir


class Supervisor:
    """Looks after Envoy, web, controller and worker. Runs in the main thread, which owns the signals."""

    def __init__(
        self, settings: Settings, engine: Engine, gateway: Gateway, platform: Platform, say: Say
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._gateway = gateway
        self._platform = platform
        self._say = say
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._children = {role: Child(role, settings.logs_dir / f"{role}.log") for role in children.ROLES}
        self._began = time.monotonic()
        self._ready = False
        self._asked_to_end = False
        self._hurry_until: float | None = None
        self._tidy_at = self._began + TIDY_EVERY_S

    def run(self) -> None:
        """Keep everything running until SIGINT or SIGTERM; then end it all and leave no process behind."""
        bond.adopt_orphans()
        with self._signals():
            try:
                while not self._turn():
                    pass
            finally:
                self._end_everything()

    # -- running -----------------------------------------------------------------------------------------

    def _turn(self) -> bool:
        """One round; return whether the operator wants an end."""
        self._start_due()
        if not self._ready:
            self._probe()
        self._tidy()
        event = self._next(self._pause_s())
        if isinstance(event, Ended):
            self._note_end(event)
        elif isinstance(event, Stir):
            self._reap_orphans()
        return isinstance(event, Signalled)

    def _start_due(self) -> None:
        now = time.monotonic()
        for child in self._children.values():
            if child.due_at is not None and child.due_at <= now:
                self._start(child)

    def _start(self, child: Child) -> None:
        try:
            children.start(child, self._settings, self._on_exit)
        except (UnavailableError, OSError) as error:
            child.started_at = time.monotonic()
            pause_s = child.ended(time.monotonic())
            child.due_at = time.monotonic() + max(1.0, pause_s)
            self._say(f"{child.role} cannot be started: {error}")
            return
        if child.adopted:
            self._say(f"{child.role} was running (pid {child.pid}) and goes on")

    def _probe(self) -> None:
        if readiness.waiting_for(self._settings, self._engine, self._gateway):
            return
        self._ready = True
        self._say(f"dashboard  {self._settings.web_url}")
        self._say(f"gateway    {self._settings.gateway_url}")
        self._say(f"ready in {time.monotonic() - self._began:.1f} s; Ctrl-C stops everything")

    def _note_end(self, event: Ended) -> None:
        child = self._children[event.role]
        if child.pid != event.pid:
            return
        lived_s = time.monotonic() - child.started_at
        pause_s = child.ended(time.monotonic())
        again = "starting it again" if pause_s == 0 else f"starting it again in {pause_s:g} s"
        why = exits.in_words(event.code)
        self._say(f"{event.role} (pid {event.pid}) ended after {lived_s:.1f} s: {why}; {again}")
        if child.failures >= LOOP_FAILURES:
            for line in log_files.tail(child.log, 5):
                self._say(f"  {event.role}: {line}")

    def _tidy(self) -> None:
        if time.monotonic() < self._tidy_at:
            return
        self._tidy_at = time.monotonic() + TIDY_EVERY_S
        for child in self._children.values():
            log_files.bound(child.log)

    def _pause_s(self) -> float:
        now = time.monotonic()
        due = [child.due_at for child in self._children.values() if child.due_at is not None]
        nearest = min([self._tidy_at, *due]) - now
        return max(0.0, nearest if self._ready else min(nearest, PROBE_EVERY_S))

    # -- ending ------------------------------------------------------------------------------------------

    def _end_everything(self) -> None:
        self._say("stopping …")
        self._end_children(children.OWN_ROLES, END_PATIENCE_S)
        try:
            self._end_agents()
        finally:
            self._end_children((children.ENVOY,), ENVOY_PATIENCE_S)
            self._reap_orphans()
        self._say("stopped")

    def _end_children(self, roles: tuple[str, ...], patience_s: float) -> None:
        mine = [self._children[role] for role in roles]
        for child in mine:
            _send(child.pid, signal.SIGTERM)
        deadline = time.monotonic() + patience_s
        while any(child.pid for child in mine) and self._wait(deadline):
            pass
        for child in mine:
            _send(child.pid, signal.SIGKILL)

    def _end_agents(self) -> None:
        deadline = time.monotonic() + self._settings.drain_timeout_s
        self._platform.watch(lambda: self._events.put(Stir()))
        agents = len(self._platform.running())
        if agents:
            self._say(f"stopping {agents} agents")
        shutdown.end_agents(self._platform, lambda: self._wait(deadline))
        # what the registry does not hear of now, the next controller sees for itself
        with suppress(LeaseLostError, SignalboxError, SQLAlchemyError):
            lease = Lease(self._engine, lease_s=self._settings.lease_s, clock=time.time, holder=holder_name())
            while not lease.hold() and self._wait(deadline):
                pass
            shutdown.record_ended(lease, time.time())

    def _wait(self, deadline: float) -> bool:
        """Sleep until something happens; return False when patience is over."""
        rest_s = self._rest_s(deadline)
        if rest_s <= 0:
            return False
        event = self._next(min(rest_s, 0.5))
        if isinstance(event, Ended):
            child = self._children[event.role]
            child.pid = None if child.pid == event.pid else child.pid
        self._reap_orphans()
        return True

    def _rest_s(self, deadline: float) -> float:
        end = deadline if self._hurry_until is None else min(deadline, self._hurry_until)
        return end - time.monotonic()

    # -- events ------------------------------------------------------------------------------------------

    def _next(self, timeout_s: float) -> Event | None:
        try:
            return self._events.get(timeout=max(0.001, timeout_s))
        except queue.Empty:
            return None

    def _on_exit(self, role: str, pid: int, code: int | None) -> None:
        self._events.put(Ended(role, pid, code))

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self._hurry_until is None and self._asked_to_end:
            self._hurry_until = time.monotonic() + HURRY_S
        self._asked_to_end = True
        self._events.put(Signalled())

    def _on_child(self, _number: int, _frame: FrameType | None) -> None:
        self._events.put(Stir())

    @contextmanager
    def _signals(self) -> Iterator[None]:
        handlers = {
            signal.SIGINT: self._on_signal,
            signal.SIGTERM: self._on_signal,
            signal.SIGCHLD: self._on_child,
        }
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _reap_orphans(self) -> None:
        """Collect ended processes that children left to us; our own are collected by their threads."""
        own = {child.pid for child in self._children.values()}
        for process in psutil.Process().children():
            with suppress(psutil.Error, ChildProcessError):
                if process.pid not in own and process.status() == psutil.STATUS_ZOMBIE:
                    os.waitpid(process.pid, os.WNOHANG)


def _send(pid: int | None, number: signal.Signals) -> None:
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
