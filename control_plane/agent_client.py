"""Asks serving agents how they are and what they answered, in the terms of their contract."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from http import HTTPStatus
from typing import Final
from urllib.parse import urlencode

import msgspec

from control_plane import socket_http
from serving_agent.contract import capture
from serving_agent.contract import profile as profiles
from serving_agent.contract.capture import Capture, CapturePage
from serving_agent.contract.profile import LiveOrder, LiveProfile
from serving_agent.contract.status import AgentStatus

HEALTH_TIMEOUT_S: Final = 1.0
"""An agent that has not answered after this long is silent in this round."""
PARALLEL: Final = 32
LARGEST_ANSWER_BYTES: Final = 64 * 1024
CAPTURES_TIMEOUT_S: Final = 2.0
"""How long one page of captures may take: the rollout goes on without what a busy agent would tell."""
LARGEST_CAPTURES_BYTES: Final = 16 * 1024 * 1024
"""Largest page of captures, as JSON; agents end theirs well before."""
PROFILE_GRACE_S: Final = 30.0
"""How long an agent may take for its answer after the time its profile was given."""
LARGEST_PROFILE_BYTES: Final = 64 * 1024 * 1024


class AgentBusyError(Exception):
    """The agent is being profiled already."""


class AgentClient:
    """Reads /health of many agents at once. Close it when done."""

    def __init__(self, timeout_s: float = HEALTH_TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._pool = ThreadPoolExecutor(PARALLEL, thread_name_prefix="agent-health")

    def statuses(self, addresses: Mapping[str, str]) -> dict[str, AgentStatus]:
        """Answers by agent id, within about one timeout for all together; who does not answer is left out.

        addresses: agent id to REST address (`unix:/path` or `host:port`).
        """
        asked = {
            self._pool.submit(read_status, address, self._timeout_s): agent_id
            for agent_id, address in addresses.items()
        }
        done, late = wait(asked, timeout=self._timeout_s * 1.5)
        for future in late:
            future.cancel()
        answers = {asked[future]: future.result() for future in done}
        return {agent_id: status for agent_id, status in answers.items() if status is not None}

    def close(self) -> None:
        """End its threads; the agents are not touched."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def read_status(address: str, timeout_s: float) -> AgentStatus | None:
    """The agent's answer to GET /health, or None when there is none within *timeout_s*. Never raises."""
    try:
        body = socket_http.get(address, "/health", timeout_s, LARGEST_ANSWER_BYTES)
        return msgspec.json.decode(body, type=AgentStatus)
    except (socket_http.NoAnswerError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def captures(
    address: str,
    after: int = 0,
    rollout: str = "",
    limit: int = capture.DEFAULT_LIMIT,
    *,
    timeout_s: float = CAPTURES_TIMEOUT_S,
) -> CapturePage | None:
    """The agent's captures after number *after*, oldest first; None when there is no answer. Never raises.

    address: REST address (`unix:/path` or `host:port`); rollout: its id, empty for any. Ask again with the
    page's `last` for what came later, at once where it says `more`. Large inputs come without data: see
    `captured`.
    """
    query: dict[str, int | str] = {"after": after, "limit": limit, "rollout": rollout}
    return _read_captures(address, capture.ROUTE, query, timeout_s)


def captured(address: str, seq: int, timeout_s: float = CAPTURES_TIMEOUT_S) -> Capture | None:
    """Capture number *seq* with all that was kept of its inputs; None where it is gone. Never raises."""
    return _read_one(address, capture.ROUTE, seq, timeout_s)


def samples(
    address: str,
    after: int = 0,
    limit: int = capture.DEFAULT_LIMIT,
    *,
    timeout_s: float = CAPTURES_TIMEOUT_S,
) -> CapturePage | None:
    """The requests after number *after* that the agent keeps for the debugger, as `captures` gives them."""
    return _read_captures(address, capture.SAMPLES_ROUTE, {"after": after, "limit": limit}, timeout_s)


def sampled(address: str, seq: int, timeout_s: float = CAPTURES_TIMEOUT_S) -> Capture | None:
    """Sample number *seq* with all that was kept of its inputs; None where it is gone. Never raises."""
    return _read_one(address, capture.SAMPLES_ROUTE, seq, timeout_s)


def _read_one(address: str, route: str, seq: int, timeout_s: float) -> Capture | None:
    page = _read_captures(address, route, {"after": seq - 1, "limit": 1, "inputs": "all"}, timeout_s)
    if page is None:
        return None
    return next((each for each in page.captures if each.seq == seq), None)


def _read_captures(
    address: str, route: str, query: Mapping[str, int | str], timeout_s: float
) -> CapturePage | None:
    try:
        target = f"{route}?{urlencode(query)}"
        body = socket_http.get(address, target, timeout_s, LARGEST_CAPTURES_BYTES)
        return msgspec.json.decode(body, type=CapturePage)
    except (socket_http.NoAnswerError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def profile(address: str, order: LiveOrder) -> LiveProfile:
    """What the agent saw of itself while it answered requests as *order* says; returns when that is over.

    address: REST address (`unix:/path` or `host:port`). Raises AgentBusyError while another profile is taken,
    and NoAnswerError, also for an answer that is none.
    """
    timeout_s = order.seconds + PROFILE_GRACE_S
    answer = socket_http.post(
        address, profiles.ROUTE, msgspec.json.encode(order), timeout_s, LARGEST_PROFILE_BYTES
    )
    if answer.status == HTTPStatus.CONFLICT:
        raise AgentBusyError("another profile of the agent is being taken")
    if answer.status != HTTPStatus.OK:
        raise socket_http.NoAnswerError(f"it answered with status {answer.status}")
    try:
        return msgspec.json.decode(answer.body, type=LiveProfile)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise socket_http.NoAnswerError(f"its answer is no profile: {error}") from error
