"""One round of measuring: the gateway, the agents and the host, written to the store in one transaction.

A source that does not answer in time costs its own samples and nobody else's: its time is a gap, not a zero.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Final

from control_plane import socket_http
from control_plane.config import Settings
from control_plane.errors import UnavailableError
from control_plane.telemetry import exposition, host, series
from control_plane.telemetry.exposition import Reading, Source
from control_plane.telemetry.local_store import LocalStore
from control_plane.telemetry.samples import Increments, Key, Labels, Sample, SampleKind, Total, labels_of
from serving_agent.contract import metric_names

logger = logging.getLogger(__name__)

AGENT_TIMEOUT_S: Final = 1.0
PARALLEL: Final = 16
LONGEST_GAUGE_SPAN: Final = 2.5
"""A gauge speaks for the time since the last round, but for no more than so many intervals."""
LARGEST_AGENT_ANSWER_BYTES: Final = 4 * 1024 * 1024

_HTTP_OF_GRPC: Final = {
    "0": "200", "1": "499", "2": "500", "3": "400", "4": "504", "5": "404", "6": "409", "7": "403",
    "8": "429", "9": "400", "10": "409", "11": "400", "12": "501", "13": "500", "14": "503", "15": "500",
    "16": "401",
}  # fmt: skip
"""HTTP status of the same meaning, by gRPC status (google/rpc/code.proto)."""

_WHERE: Final = ("endpoint", "version")
_GATEWAY_SOURCES: Final = (
    Source("envoy_gwm_requests", series.GATEWAY_REQUESTS, SampleKind.COUNTER, (*_WHERE, "code", "grpc")),
    Source("envoy_gwm_latency_us", series.GATEWAY_LATENCY, SampleKind.HISTOGRAM, _WHERE, scale=1e-6),
    Source("envoy_gwm_ttfb_us", series.GATEWAY_FIRST_BYTE, SampleKind.HISTOGRAM, _WHERE, scale=1e-6),
)


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
    agents to measure now.
    """

    def __init__(
        self,
        settings: Settings,
        store: LocalStore,
        read_envoy: Callable[[], str],
        list_agents: Callable[[], Sequence[MeasuredAgent]],
    ) -> None:
        self._longest_span_s = LONGEST_GAUGE_SPAN * settings.collect_interval_s
        self._store = store
        self._read_envoy = read_envoy
        self._list_agents = list_agents
        self._gateway = Increments()
        self._agents: dict[str, Increments] = {}
        self._pending: dict[str, Future[str]] = {}
        self._processes = host.ProcessMeter()
        self._pool = ThreadPoolExecutor(PARALLEL, thread_name_prefix="collect")
        self._last_s: float | None = None

    def collect(self, now_s: float) -> None:
        """Measure everything and write it as of *now_s*. Raises what the store or *list_agents* raise."""
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
            reading = exposition.read(self._read_envoy(), _GATEWAY_SOURCES)
        except (UnavailableError, ValueError) as error:
            logger.debug("gateway statistics: %s", error)
            return []
        samples = self._gateway.take(with_http_codes(reading.totals), now_s)
        return list(of_interest(samples, {(agent.endpoint, agent.version) for agent in agents}))

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
        try:
            reading = exposition.read(text, _agent_sources(agent))
        except ValueError:
            logger.warning("agent %s: its metrics are not in Prometheus' format", agent.agent_id)
            return
        increments = self._agents.setdefault(agent.agent_id, Increments())
        yield from increments.take(reading.totals, now_s)
        yield from _gauges(reading, span_s)


def _agent_metrics(address: str) -> str:
    return socket_http.get(address, "/metrics", AGENT_TIMEOUT_S, LARGEST_AGENT_ANSWER_BYTES).decode()


def _answer(finished: Future[str], agent: MeasuredAgent) -> str | None:
    try:
        return finished.result()
    except (socket_http.NoAnswerError, UnicodeDecodeError) as error:
        logger.debug("agent %s: %s", agent.agent_id, error)
        return None


def _agent_sources(agent: MeasuredAgent) -> tuple[Source, ...]:
    where = agent.labels
    histograms = (
        (metric_names.QUEUE_DURATION_SECONDS, series.AGENT_QUEUE),
        (metric_names.INFERENCE_DURATION_SECONDS, series.AGENT_INFERENCE),
        (metric_names.REQUEST_DURATION_SECONDS, series.AGENT_REQUEST),
        (metric_names.PREDICT_DURATION_SECONDS, series.AGENT_PREDICT),
    )
    gauges: tuple[tuple[str, str, tuple[str, ...]], ...] = (
        (metric_names.IN_FLIGHT, series.AGENT_IN_FLIGHT, ()),
        (metric_names.QUEUE_DEPTH, series.AGENT_QUEUE_DEPTH, ()),
        (metric_names.MEMORY_USAGE_BYTES, _ANY_MEMORY, ("kind",)),
    )
    return (
        *(Source(name, stored, SampleKind.HISTOGRAM, (), added=where) for name, stored in histograms),
        *(Source(name, stored, SampleKind.GAUGE, labels, added=where) for name, stored, labels in gauges),
        *_agent_counters(where),
    )


def _agent_counters(where: Mapping[str, str]) -> Iterator[Source]:
    """Counters; those that only mean something together are stored as one, told apart by `code`."""
    pairs = (
        (f"{metric_names.BATCH_ROWS}_sum", series.AGENT_BATCHES, "rows"),
        (f"{metric_names.BATCH_ROWS}_count", series.AGENT_BATCHES, "batches"),
        (_family(metric_names.CACHE_HITS_TOTAL), series.AGENT_CACHE, "hit"),
        (_family(metric_names.CACHE_MISSES_TOTAL), series.AGENT_CACHE, "miss"),
    )
    for exported, stored, code in pairs:
        yield Source(exported, stored, SampleKind.COUNTER, (), added={**where, "code": code})
    rejected = _family(metric_names.REJECTED_TOTAL)
    yield Source(rejected, series.AGENT_REJECTED, SampleKind.COUNTER, ("reason",), added=where)


def _family(total: str) -> str:
    return total.removesuffix("_total")


_ANY_MEMORY: Final = "memory"
"""Memory of every kind, of which only the device's is kept: resident memory is measured from outside."""


def _gauges(reading: Reading, span_s: float) -> Iterator[Sample]:
    for key, value in reading.gauges.items():
        labels = dict(key.labels)
        if key.name != _ANY_MEMORY:
            yield Sample(key, value, span_s)
        elif labels.pop("kind") == "cuda":
            yield Sample(Key(series.AGENT_DEVICE_MEMORY, labels_of(labels)), value, span_s)


def with_http_codes(totals: Iterable[Total]) -> list[Total]:
    """Give gRPC answers the HTTP status of the same meaning (theirs is always 200); sum what coincides."""
    others = []
    sums: dict[Key, float] = {}
    for total in totals:
        if total.key.name != series.GATEWAY_REQUESTS:
            others.append(total)
            continue
        key = Key(total.key.name, _http_labels(dict(total.key.labels)), SampleKind.COUNTER)
        sums[key] = sums.get(key, 0.0) + total.value
    return [*others, *(Total(key, value) for key, value in sums.items())]


def _http_labels(labels: Mapping[str, str]) -> Labels:
    code = _HTTP_OF_GRPC.get(labels["grpc"], labels["code"])
    return labels_of({"endpoint": labels["endpoint"], "version": labels["version"], "code": code})


def of_interest(samples: Sequence[Sample], serving: set[tuple[str, str]]) -> Iterator[Sample]:
    """Leave out versions that are gone (Envoy counts them for ever); one nobody called yet has rate 0."""
    called = set()
    for sample in samples:
        labels = dict(sample.key.labels)
        where = labels["endpoint"], labels["version"]
        called.add(where)
        if sample.value or where in serving:
            yield sample
    for endpoint, version in serving - called if samples else ():
        labels = {"endpoint": endpoint, "version": version, "code": "200"}
        yield Sample(
            Key(series.GATEWAY_REQUESTS, labels_of(labels), SampleKind.COUNTER), 0.0, samples[0].span_s
        )


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
