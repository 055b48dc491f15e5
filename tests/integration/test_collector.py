"""The collector against a real Envoy, real processes and sources that misbehave."""

from __future__ import annotations

import http.server
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from control_plane.config import Settings
from control_plane.errors import UnavailableError
from control_plane.gateway.envoy_files import gateway_files
from control_plane.gateway.traffic_plan import Comparison, Sticky
from control_plane.telemetry import series
from control_plane.telemetry.collector import Collector, MeasuredAgent
from control_plane.telemetry.local_store import LocalStore
from control_plane.telemetry.ticks import read_ticks
from control_plane.telemetry.unit_log import UnitLog
from tests.fakes import upstream
from tests.fakes.envoy import plan, running_envoy
from tests.fakes.waiting import wait_until

NOW = 1_800_000_000.0


class Exporter(http.server.BaseHTTPRequestHandler):
    """An agent's /metrics with a counter of its readings."""

    readings = 0

    def do_GET(self) -> None:
        type(self).readings += 1
        text = (
            "# TYPE model_requests_in_flight gauge\n"
            'model_requests_in_flight{model_name="digits",endpoint="digits",version="digits@1"} 3\n'
            "# TYPE model_queue_duration_seconds histogram\n"
            f'model_queue_duration_seconds_bucket{{le="0.1"}} {self.readings * 10}\n'
            f'model_queue_duration_seconds_bucket{{le="+Inf"}} {self.readings * 10}\n'
        )
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class names it so
        pass


@pytest.fixture
def exporter() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Exporter) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def mute() -> Iterator[str]:
    """An agent that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def agent(agent_id: str, address: str, version: str = "digits@1") -> MeasuredAgent:
    return MeasuredAgent(agent_id, "digits", version, os.getpid(), address)


@contextmanager
def collector(
    home: Path, agents: list[MeasuredAgent], envoy: object = None, units: UnitLog | None = None
) -> Iterator[Collector]:
    def down() -> str:
        raise UnavailableError("the gateway does not answer")

    settings, unit_log = Settings(home=home), units or UnitLog(home / "units.log", lambda: None)
    made = Collector(settings, LocalStore(home / "m.db"), envoy or down, lambda: agents, unit_log)  # type: ignore[arg-type]  callable or nothing
    try:
        yield made
    finally:
        made.close()


def test_an_agent_is_measured_from_inside_and_outside(tmp_path: Path, exporter: str) -> None:
    with collector(tmp_path, [agent("a1", exporter)]) as measuring:
        for number in range(1, 4):
            measuring.collect(NOW + 2 * number)
    store = LocalStore(tmp_path / "m.db")

    assert store.count(series.AGENT_QUEUE, NOW, NOW + 10, agent="a1") == 20
    (in_flight,) = store.query("agent_in_flight", NOW, NOW + 6, 2, agent="a1")
    (memory,) = store.query("agent_memory", NOW, NOW + 6, 2)
    (host,) = store.query("host_memory", NOW, NOW + 6, 2)
    assert list(in_flight.values) == [3, 3, 3]
    assert memory.labels == {"endpoint": "digits", "version": "digits@1", "agent": "a1"}
    assert all(value and value > 1e6 for value in [*memory.values, *host.values])
    assert len(store.query("agent_cpu", NOW, NOW + 6, 2)) == 1


def test_a_hung_agent_costs_only_its_own_points(tmp_path: Path, exporter: str, mute: str) -> None:
    with collector(tmp_path, [agent("mute", mute), agent("a1", exporter)]) as measuring:
        measuring.collect(NOW + 2)
        measuring.collect(NOW + 4)
    store = LocalStore(tmp_path / "m.db")

    lines = store.query("agent_in_flight", NOW, NOW + 4, 2)
    assert [line.labels["agent"] for line in lines] == ["a1"]


def test_an_agent_that_comes_back_makes_no_spike(tmp_path: Path, exporter: str) -> None:
    agents = [agent("a1", exporter)]
    with collector(tmp_path, agents) as measuring:
        measuring.collect(NOW + 2)
        agents[0] = agent("a1", "unix:/nowhere")
        measuring.collect(NOW + 4)
        agents[0] = agent("a1", exporter)
        measuring.collect(NOW + 6)

    assert LocalStore(tmp_path / "m.db").count(series.AGENT_QUEUE, NOW, NOW + 10) == 10


def test_a_process_that_is_gone_is_a_gap(tmp_path: Path) -> None:
    gone = MeasuredAgent("a1", "digits", "digits@1", 2**22 + 1, "unix:/nowhere")
    with collector(tmp_path, [gone]) as measuring:
        measuring.collect(NOW + 2)
    store = LocalStore(tmp_path / "m.db")

    assert store.query("agent_memory", NOW, NOW + 2, 2) == []
    assert store.query("request_rate", NOW, NOW + 2, 2) == []
    assert store.query("host_cpu", NOW, NOW + 2, 2) != []


def test_requests_through_envoy_become_rates_and_quantiles(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with running_envoy(tmp_path_factory.mktemp("home")) as envoy:
        serving = upstream.start(tmp_path, "a", "digits@1")
        try:
            envoy.apply(plan("digits", v1=(1.0, [serving.replica])))
            measured = agent("a", "unix:/nowhere")
            with collector(tmp_path, [measured], envoy.gateway.metrics) as measuring:
                measuring.collect(NOW + 2)
                with httpx.Client(base_url=envoy.url) as client:
                    for _ in range(19):
                        client.get("/e/digits/predict")
                    client.get("/e/digits/fail")
                wait_until(
                    lambda: counted(envoy.gateway.metrics()) == 20, timeout_s=5, what=envoy.gateway.metrics
                )
                measuring.collect(NOW + 4)
                envoy.kill()
                measuring.collect(NOW + 6)
                envoy.start()
                measuring.collect(NOW + 8)
        finally:
            serving.kill()
    store = LocalStore(tmp_path / "m.db")

    assert store.count(series.GATEWAY_REQUESTS, NOW, NOW + 8, endpoint="digits") == 20
    (rate,) = store.query("request_rate", NOW, NOW + 6, 2)
    (errors,) = store.query("error_rate", NOW, NOW + 6, 2)
    (median,) = store.query("latency_p50", NOW, NOW + 6, 2)
    assert rate.labels == {"endpoint": "digits", "version": "digits@1"}
    assert list(rate.values) == [None, 10, None]
    assert errors.values[1] == 0.05
    assert median.values[1] is not None
    assert 0 < median.values[1] < 1


def test_evidence_of_a_rollout_becomes_ticks(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Stable hides a broken candidate by retries; testers and other endpoints are no evidence."""
    with running_envoy(tmp_path_factory.mktemp("home")) as envoy, ExitStack() as ending:
        stable = upstream.start(tmp_path, "a", "digits@1")
        broken = upstream.start(tmp_path, "b", "digits@2", behaviour="503")
        for serving in (stable, broken):
            ending.callback(serving.kill)
        split = plan("digits", v1=(0.5, [stable.replica]), v2=(0.5, [broken.replica]))
        compared = Comparison(rollout="r1", stable="digits@1", candidate="digits@2", tester_header=True)
        envoy.apply(replace(split, comparison=compared), plan("other", v1=(1.0, [stable.replica])))
        agents = [agent("a", "unix:/nowhere"), agent("b", "unix:/nowhere", "digits@2")]
        with collector(tmp_path, agents, envoy.gateway.metrics) as measuring:
            measuring.collect(NOW + 2)
            with httpx.Client(base_url=envoy.url) as client:
                answers = [client.get("/e/digits/predict").status_code for _ in range(60)]
                client.get("/e/digits/fail")
                client.get("/e/digits/x", headers={"x-signalbox-version": "candidate"})
                client.get("/preview/digits/x")
                client.get("/e/other/x")
            wait_until(lambda: timed(envoy.gateway.metrics()) == 61, timeout_s=5, what=envoy.gateway.metrics)
            measuring.collect(NOW + 4)
            envoy.kill()
            measuring.collect(NOW + 6)
            envoy.start()
            measuring.collect(NOW + 12)
            measuring.collect(NOW + 16)
    found = read_ticks(
        LocalStore(tmp_path / "m.db"),
        "digits",
        "digits@1",
        "digits@2",
        int(NOW * 1000),
        5000,
        int(NOW * 1000),
    )

    assert answers == [200] * 60
    first, second = found
    assert (first.end_ms, first.span_s) == ((NOW + 5) * 1000, 2.0)
    assert (first.stable.requests, first.stable.errors) == (61, 1)
    assert (first.stable.tries, first.stable.failed_tries) == (61, 1)
    assert (first.candidate.requests, first.candidate.errors) == (0, 0), "what clients got hides it"
    assert first.candidate.tries == first.candidate.failed_tries > 10
    assert sum(first.stable.latency) == sum(first.stable.first_byte) == 61
    assert (second.end_ms, second.span_s) == ((NOW + 15) * 1000, 8.0)
    assert (second.stable.requests, second.candidate.tries) == (0, 0)


def test_sessions_count_once_a_step_whatever_happens_to_the_collector(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A burst of one client's errors is one error; who reads the log anew counts nobody again."""
    with running_envoy(tmp_path_factory.mktemp("home")) as envoy, ExitStack() as ending:
        stable = upstream.start(tmp_path, "a", "digits@1")
        candidate = upstream.start(tmp_path, "b", "digits@2")
        for serving in (stable, candidate):
            ending.callback(serving.kill)
        agents = [agent("a", "unix:/nowhere"), agent("b", "unix:/nowhere", "digits@2")]
        split = plan("digits", v1=(0.0, [stable.replica]), v2=(1.0, [candidate.replica]))
        split = replace(split, sticky=Sticky("header", "sid"))
        compared = Comparison(rollout="r1", stable="digits@1", candidate="digits@2")
        client = ending.enter_context(httpx.Client(base_url=envoy.url))

        def ask(path: str, *sessions: str) -> None:
            for session in sessions:
                client.get(f"/e/digits/{path}", headers={"sid": session} if session else {})
            last, log = sessions[-1].encode(), gateway_files(envoy.settings).units
            wait_until(lambda: last in log.read_bytes(), timeout_s=5, what=log.read_text)

        def measuring() -> Collector:
            log = UnitLog(gateway_files(envoy.settings).units, envoy.gateway.reopen_logs)
            return ending.enter_context(collector(tmp_path, agents, envoy.gateway.metrics, log))

        envoy.apply(replace(split, comparison=compared))
        first = measuring()
        first.collect(NOW + 1)
        ask("fail", *["burst"] * 20, "", "", "bo")
        first.collect(NOW + 3)
        ask("x", "unseen")
        second = measuring()
        second.collect(NOW + 5.5)
        first.begin_anew()
        first.collect(NOW + 6)
        ask("x", "burst", "bo", "unseen", "cleo")
        second.collect(NOW + 8)
        envoy.apply(replace(split, comparison=replace(compared, step=1)))
        ask("x", "burst", "bo", "dan")
        second.collect(NOW + 11)
        second.collect(NOW + 16)
    store, now_ms = LocalStore(tmp_path / "m.db"), int(NOW * 1000)
    found = read_ticks(store, "digits", "digits@1", "digits@2", now_ms, 5000, now_ms, by_unit=True)

    by_unit = [tick.candidate for tick in found]
    assert [(arm.requests, arm.errors) for arm in by_unit] == [(2, 2), (1, 0), (3, 0)]
    assert [(sum(arm.latency), sum(arm.first_byte)) for arm in by_unit] == [(2, 2), (1, 1), (3, 3)]
    assert by_unit[0].tries == 23


def timed(text: str) -> int:
    lines = [line for line in text.splitlines() if line.startswith("envoy_gwm_compared_us_count")]
    return sum(int(line.rpartition(" ")[2]) for line in lines)


def counted(text: str) -> int:
    lines = [line for line in text.splitlines() if line.startswith("envoy_gwm_latency_us_count")]
    return sum(int(line.rpartition(" ")[2]) for line in lines)
