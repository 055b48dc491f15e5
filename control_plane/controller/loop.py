"""The controller's loop: hold the lease, observe, plan, execute, pause; and the periodic work beside it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from control_plane.controller.actions import (
    MoveRollout,
    PublishBackends,
    PublishRoutes,
    RecordPhase,
    SetServing,
)
from control_plane.controller.execute import Executor
from control_plane.controller.lease import Lease, LeaseLostError
from control_plane.controller.observe import Observer
from control_plane.controller.plan import plan
from control_plane.errors import SignalboxError

logger = logging.getLogger(__name__)

MILESTONES: Final = (RecordPhase, SetServing, PublishBackends, PublishRoutes, MoveRollout)
"""Actions after which the next step of make-before-break is usually possible at once."""
NEXT_STEP_S: Final = 0.05
LONGEST_PAUSE_S: Final = 2.0
"""Pause after ticks that failed again and again, in seconds."""
FIRST_RUN_S: Final = 60.0
"""Rare periodic work is first done this soon, in seconds: many a session is shorter than its interval."""
JOIN_S: Final = 3.0
"""How long periodic work under way may take to end after the loop, in seconds."""


@dataclass(frozen=True, slots=True)
class Periodic:
    """Work that runs beside the ticks of a leader: `run(now)` every `every_s` seconds, in its own thread.

    It runs for the first time after a minute at the latest.
    """

    name: str
    every_s: float
    run: Callable[[float], object]


class Controller:
    """One controller process: leads or stands by, until `stop` is called (from any thread).

    weigh: weighs the evidence of rollouts as of a time, before each plan; begin_anew: forgets what was
    remembered of the time before another controller led.
    """

    def __init__(
        self,
        lease: Lease,
        observer: Observer,
        executor: Executor,
        *,
        tick_s: float,
        weigh: Callable[[float], object] = lambda _now: None,
        begin_anew: Callable[[], object] = lambda: None,
        periodic: tuple[Periodic, ...] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._lease = lease
        self._observer = observer
        self._executor = executor
        self._tick_s = tick_s
        self._weigh = weigh
        self._begin_anew = begin_anew
        self._periodic = periodic
        self._clock = clock
        self._wake = threading.Event()
        self._ending = threading.Event()
        self._leading = threading.Event()
        self._problem: str | None = None
        self._failed_ticks = 0
        self._more_follows = False

    def run(self) -> None:
        """Lead whenever possible, until told to stop; then let a successor lead at once.

        Returns when periodic work has ended too, or has had `JOIN_S` for that.
        """
        threads = [
            threading.Thread(target=self._repeat, args=(work,), daemon=True) for work in self._periodic
        ]
        for thread in threads:
            thread.start()
        try:
            while not self._ending.is_set():
                self._wake.clear()
                self.tick()
                self._wake.wait(self._pause_s())
        finally:
            self._leading.clear()
            self._ending.set()
            self._release()
            _join(threads)

    def stop(self) -> None:
        """End the loop after the tick under way."""
        self._ending.set()
        self._wake.set()

    def wake(self) -> None:
        """Look again at once: something changed."""
        self._wake.set()

    def tick(self) -> bool:
        """One round; return whether it was led and carried out to the end."""
        self._more_follows = False
        try:
            if not self._hold():
                return False
            self._weigh(self._clock())
            actions = plan(self._observer.observe())
            self._executor.execute(actions)
        except LeaseLostError:
            self._stand_by()
            return False
        except (SignalboxError, SQLAlchemyError, OSError) as error:
            self._note(str(error))
            return False
        except Exception:  # one of the four edges: a tick must never end the controller
            logger.exception("a tick failed")
            self._failed_ticks += 1
            return False
        self._note(None)
        self._more_follows = any(isinstance(action, MILESTONES) for action in actions)
        return True

    def _hold(self) -> bool:
        if not self._lease.hold():
            self._stand_by()
            return False
        if not self._leading.is_set():
            logger.info("leading (token %d)", self._lease.token or 0)
            self._begin_anew()
            self._leading.set()
        return True

    def _stand_by(self) -> None:
        if self._leading.is_set():
            logger.warning("another controller leads now; standing by")
        self._leading.clear()

    def _note(self, problem: str | None) -> None:
        """Log a problem once, and its end once."""
        if problem is not None and problem != self._problem:
            logger.warning("tick stopped: %s", problem)
        if problem is None and self._problem is not None:
            logger.info("ticks work again")
        self._failed_ticks = 0 if problem is None else self._failed_ticks + 1
        self._problem = problem

    def _pause_s(self) -> float:
        if self._more_follows:
            return min(self._tick_s, NEXT_STEP_S)
        longest = max(LONGEST_PAUSE_S, self._tick_s)
        return min(longest, self._tick_s * 2.0 ** min(self._failed_ticks, 10))

    def _release(self) -> None:
        try:
            self._lease.release()
        except (SignalboxError, SQLAlchemyError) as error:
            logger.warning("the lease could not be given back: %s", error)

    def _repeat(self, work: Periodic) -> None:
        first_s = min(work.every_s, FIRST_RUN_S)
        pause_s = first_s
        while not self._ending.wait(pause_s):
            if not self._leading.is_set():
                pause_s = first_s
                continue
            pause_s = work.every_s
            try:
                work.run(self._clock())
            except Exception:  # an edge: periodic work must not end its thread
                logger.exception("%s failed", work.name)


def _join(threads: Iterable[threading.Thread]) -> None:
    deadline = time.monotonic() + JOIN_S
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
