"""One round of measuring: the gateway, the agents and the host, written to the store in one transaction.

A source that does not answer in time costs its own samples and nobody else's: its time is a gap, not a zero.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Final

from control_plane import socket_http
from control_plane.config import Settings
from control_plane.errors import UnavailableError
from control_plane.telemetry import agent_figures, gateway_figures, host, series
from control_plane.telemetry.exposition import Reader, Source
from control_plane.telemetry.local_store import LocalStore
from control_plane.telemetry.samples import Increments, Key, Sample, SampleKind, labels_of
from control_plane.telemetry.unit_log import UnitLog
from control_plane.telemetry.units import Units

logger = logging.getLogger(__name__)

AGENT_TIMEOUT_S: Final = 1.0
PARALLEL: Final = 16
LONGEST_GAUGE_SPAN: Final = 2.5
"""A gauge speaks for the time since the last round, but for no more than so many intervals."""
LARGEST_AGENT_ANSWER_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class MeasuredAgent:
    """An agent to measure.

    rest_address: `unix:/path` or `host:port`; version: `model@N`."""

    agent_id: str
    endpoint: str
    version: str
    pid: int
    rest_address: str

    @property
    def labels(self) -> dict[str, str]:
        """What its samples are labelled with."""
        return {"endpoint": self.endpoint, "version": self.version, "agent": self.agent_id}


class Collector:
    """Measures everything once per call of `collect`; not thread-safe, one per process. Close it when done.

    read_envoy: returns Envoy's per-request statistics as text, or raises UnavailableError. list_agents: the
    agents to measure now. unit_log: requests that count by unit; those from before the first reading of Envoy
    are known, and not counted.
    """

    def __init__(
        self,
        settings: Settings,
        store: LocalStore,
        read_envoy: Callable[[], str],
        list_agents: Callable[[], Sequence[MeasuredAgent]],
        unit_log: UnitLog,
    ) -> None:
        self._longest_span_s = LONGEST_GAUGE_SPAN * settings.collect_interval_s
        self._store = store
        self._read_envoy = read_envoy
        self._list_agents = list_agents
        self._unit_log = unit_log
        self._units = Units()
        self._gateway = _Meter(gateway_figures.SOURCES)
        self._agents: dict[str, _Meter] = {}
        self._pending: dict[str, Future[str]] = {}
        self._processes = host.ProcessMeter()
        self._pool = ThreadPoolExecutor(PARALLEL, thread_name_prefix="collect")
        self._last_s: float | None = None
        self._anew = False

    def begin_anew(self) -> None:
        """Count nothing that happened before the next round: another process has done so. From any thread."""
        self._anew = True

    def collect(self, now_s: float) -> None:
        """Measure everything and write it as of *now_s*. Raises what the store or *list_agents* raise."""
        if self._anew:
            self._anew = False
            self._gateway, self._agents = _Meter(gateway_figures.SOURCES), {}
        agents = self._list_agents()
        span_s = self._span(now_s)
        self._ask(agents)
        samples = [
            *self._gateway_samples(agents, now_s),
            *self._process_samples(agents, span_s),
            *_host_samples(span_s),
            *self._agent_samples(agents, now_s, span_s),
        ]
        self._store.write(now_s, samples)

    def close(self) -> None:
        """End its threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _span(self, now_s: float) -> float:
        since_s = self._longest_span_s if self._last_s is None else now_s - self._last_s
        self._last_s = now_s
        return max(0.0, min(since_s, self._longest_span_s))

    def _gateway_samples(self, agents: Sequence[MeasuredAgent], now_s: float) -> list[Sample]:
        try:
            reading = self._gateway.reader.read(self._read_envoy())
        except (UnavailableError, ValueError) as error:
            logger.debug("gateway statistics: %s", error)
            return []
        increments = self._gateway.increments
        samples = increments.take(gateway_figures.with_codes(reading.totals), now_s)
        units = self._units.count(self._unit_log.lines())
        self._unit_log.rotate()
        if not increments.covered_s:
            return []
        serving = {(agent.endpoint, agent.version) for agent in agents}
        return [
            Sample(Key(series.GATEWAY_READINGS, (), SampleKind.COUNTER), 1.0, increments.covered_s),
            *gateway_figures.of_interest(samples, serving),
            *(Sample(each.key, each.value, increments.covered_s, each.counts) for each in units),
        ]

    def _process_samples(self, agents: Sequence[MeasuredAgent], span_s: float) -> Iterator[Sample]:
        uses = self._processes.measure(agent.pid for agent in agents)
        for agent in agents:
            use = uses.get(agent.pid)
            if use is None:
                continue
            labels = labels_of(agent.labels)
            yield Sample(Key(series.AGENT_MEMORY, labels), use.memory_bytes, span_s)
            if use.cpu_percent is not None:
                yield Sample(Key(series.AGENT_CPU, labels), use.cpu_percent, span_s)

    def _ask(self, agents: Sequence[MeasuredAgent]) -> None:
        """Ask every agent that is not still busy with the last question."""
        known = {agent.agent_id for agent in agents}
        self._agents = {agent_id: kept for agent_id, kept in self._agents.items() if agent_id in known}
        self._pending = {agent_id: one for agent_id, one in self._pending.items() if agent_id in known}
        for agent in agents:
            if agent.agent_id not in self._pending:
                self._pending[agent.agent_id] = self._pool.submit(_agent_metrics, agent.rest_address)

    def _agent_samples(
        self, agents: Sequence[MeasuredAgent], now_s: float, span_s: float
    ) -> Iterator[Sample]:
        done, _ = wait(self._pending.values(), timeout=AGENT_TIMEOUT_S * 1.5)
        for agent in agents:
            if self._pending[agent.agent_id] in done:
                text = _answer(self._pending.pop(agent.agent_id), agent)
                if text is not None:
                    yield from self._from_agent(agent, text, now_s, span_s)

    def _from_agent(self, agent: MeasuredAgent, text: str, now_s: float, span_s: float) -> Iterator[Sample]:
        meter = self._agents.get(agent.agent_id)
        if meter is None:
            meter = self._agents[agent.agent_id] = _Meter(agent_figures.sources(agent.labels))
        try:
            reading = meter.reader.read(text)
        except ValueError:
            logger.warning("agent %s: its metrics are not in Prometheus' format", agent.agent_id)
            return
        yield from agent_figures.of_interest(meter.increments.take(reading.totals, now_s))
        yield from agent_figures.gauges(reading, span_s)


class _Meter:
    """What is kept of one process between two rounds."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.reader = Reader(sources)
        self.increments = Increments()


def _agent_metrics(address: str) -> str:
    return socket_http.get(address, "/metrics", AGENT_TIMEOUT_S, LARGEST_AGENT_ANSWER_BYTES).decode()


def _answer(finished: Future[str], agent: MeasuredAgent) -> str | None:
    try:
        return finished.result()
    except (socket_http.NoAnswerError, UnicodeDecodeError) as error:
        logger.debug("agent %s: %s", agent.agent_id, error)
        return None


def _host_samples(span_s: float) -> Iterator[Sample]:
    machine, gpus = host.host(), host.gpus()
    yield Sample(Key(series.HOST_CPU), machine.cpu_percent, span_s)
    yield Sample(Key(series.HOST_MEMORY), machine.memory_used_bytes, span_s)
    yield Sample(Key(series.GPU_COUNT), len(gpus), span_s)
    for gpu in gpus:
        values = (
            (series.GPU_UTILIZATION, gpu.utilization_percent),
            (series.GPU_MEMORY, gpu.memory_used_bytes),
            (series.GPU_TEMPERATURE, gpu.temperature_celsius),
        )
        labels = labels_of({"gpu": f"{gpu.index} {gpu.name}"})
        yield from (Sample(Key(name, labels), value, span_s) for name, value in values if value is not None)
