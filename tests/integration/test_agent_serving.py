"""What an endpoint's serving options do, on agents that really run."""

import asyncio
import json
import re
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import numpy as np
import pytest
import torch
import tritonclient.grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from serving_agent.contract import wire
from serving_agent.contract.manifest import Limits
from serving_agent.contract.options import Batching, Cache, Execution, ServingOptions
from tests.fakes import models
from tests.fakes.agents import make_manifest, start_agent
from tests.fakes.waiting import wait_until


@pytest.fixture
def serve(tmp_path, nursery):
    """Start an agent with a handler of tests.fakes.operator_handlers and serving options."""

    def start(handler, limits=None, **options):
        name = f"tests.fakes.operator_handlers:{handler}"
        settings = {"check_interval_s": 0.0, **options}
        manifest = make_manifest(
            tmp_path,
            models.SCALAR,
            handler=name,
            allowed_handlers=(name,),
            limits=limits or Limits(drain_grace_s=0.0),
            options=ServingOptions(**settings),
        )
        return start_agent(manifest, tmp_path / "agent", nursery=nursery)

    return start


def infer(values, **extra):
    """A request of len(values) rows."""
    rows = [[float(value)] for value in values]
    tensor = {"name": "x", "datatype": "FP32", "shape": [len(rows), 1], "data": rows}
    return {"inputs": [tensor], **extra}


async def ask_all(agent, bodies, headers=None):
    """Send all *bodies* at the same time, each on a connection of its own."""
    url = f"http://{agent.manifest.rest_address}/v2/models/digits/infer"
    async with httpx.AsyncClient(timeout=30) as http:
        return await asyncio.gather(*(http.post(url, json=body, headers=headers) for body in bodies))


def data(reply):
    assert reply.status_code == 200, reply.text
    return reply.json()["outputs"][0]["data"]


def statistics(agent):
    with agent.http as http:
        return http.get("/v2/models/digits/stats").json()["model_stats"][0]


def wait_status(agent, holds):
    """The agent's status once *holds* is true of it."""

    def look():
        status = agent.status()
        return status if holds(status) else None

    return wait_until(look, timeout_s=20, what=lambda: str(agent.status()), pause_s=0.005)


def check_of(agent, holds):
    """The health checker's status once *holds* is true of it."""
    return wait_status(agent, lambda status: holds(status["check"]))["check"]


def test_requests_gather_while_the_model_is_busy_and_are_capped_by_rows(serve):
    """The first runs at once and alone; what comes meanwhile goes in batches of at most 4 rows."""
    with serve("CountsRows", batching=Batching(max_rows=4)) as agent:
        bodies = [infer([300.0]), *(infer([1.0]) for _ in range(6)), infer([1.0] * 3), infer([1.0] * 9)]
        replies = asyncio.run(ask_all(agent, bodies))
        seen = [data(reply) for reply in replies]
        sizes = {size for part in seen for size in part}
        assert [len(part) for part in seen] == [1] * 7 + [3, 9]
        assert seen[-1] == [9.0] * 9, "a request of more rows than the cap runs alone and whole"
        assert max(sizes - {9.0}) <= 4
        stats = statistics(agent)
        assert stats["inference_count"] == 19
        assert stats["execution_count"] < len(bodies)
        by_size = {batch["batch_size"]: batch["compute_infer"]["count"] for batch in stats["batch_stats"]}
        assert sum(size * count for size, count in by_size.items()) == 19


def test_without_batching_every_request_runs_alone(serve):
    with serve("CountsRows", batching=Batching(max_rows=1)) as agent:
        replies = asyncio.run(ask_all(agent, [infer([50.0]) for _ in range(6)]))
        assert [data(reply) for reply in replies] == [[1.0]] * 6


def test_an_idle_model_waits_for_company_no_longer_than_the_delay(serve):
    with serve("CountsRows", batching=Batching(max_rows=4, max_delay_ms=1000)) as agent:
        took_s = []
        for _ in range(4):
            started = time.monotonic()
            replies = asyncio.run(ask_all(agent, [infer([1.0]) for _ in range(4)]))
            took_s.append(time.monotonic() - started)
            assert [data(reply) for reply in replies] == [[4.0]] * 4
        assert min(took_s) < 1.0, "a full batch does not wait"
        started = time.monotonic()
        assert data(asyncio.run(ask_all(agent, [infer([1.0])]))[0]) == [1.0]
        assert time.monotonic() - started >= 1.0


def test_parameters_are_not_mixed_and_reach_the_model(serve):
    with serve("Echoes", batching=Batching(max_rows=16, max_delay_ms=200)) as agent:
        gains = [1.0, 2.0, 3.0] * 4
        bodies = [infer([index], parameters={"gain": gain}) for index, gain in enumerate(gains)]
        replies = asyncio.run(ask_all(agent, bodies))
        assert [data(reply)[0] for reply in replies] == [index * gain for index, gain in enumerate(gains)]
        assert statistics(agent)["execution_count"] == 3
        alike = [infer([1.0], parameters={"gain": gain}) for gain in (1, 1.0, True)]
        asyncio.run(ask_all(agent, alike))
        assert statistics(agent)["execution_count"] == 6, "1, 1.0 and true are three values"


def test_rows_that_depend_on_each_other_never_share_a_batch(serve):
    with serve("MixesRows", batching=Batching(max_rows=16, max_delay_ms=200)) as agent:
        replies = asyncio.run(ask_all(agent, [infer([index, 1.0]) for index in range(5)]))
        assert [data(reply) for reply in replies] == [[index + 1.0] * 2 for index in range(5)]


def test_a_failing_member_fails_alone(serve):
    with serve("Raises", batching=Batching(max_rows=16, max_delay_ms=300)) as agent:
        bodies = [infer([1.0]), infer([-1.0]), infer([2.0]), infer([-2.0]), infer([-4.0]), infer([3.0])]
        replies = asyncio.run(ask_all(agent, bodies))
        assert [reply.status_code for reply in replies] == [200, 500, 200, 500, 500, 200]
        assert [data(replies[index]) for index in (0, 2, 5)] == [[2.0], [4.0], [6.0]]
        assert "RuntimeError" in replies[1].json()["error"]
        assert "secret" not in replies[1].text
        assert data(asyncio.run(ask_all(agent, [infer([4.0])]))[0]) == [8.0]


def test_a_cancelled_member_leaves_the_others_alone(serve):
    with serve("CountsRows", batching=Batching(max_rows=16)) as agent:

        async def scenario():
            url = f"http://{agent.manifest.rest_address}/v2/models/digits/infer"
            async with httpx.AsyncClient(timeout=30) as http:
                busy = asyncio.create_task(http.post(url, json=infer([500.0])))
                await asyncio.to_thread(wait_status, agent, lambda status: status["busy_s"] > 0)
                gone = asyncio.create_task(http.post(url, json=infer([400.0])))
                stays = asyncio.create_task(http.post(url, json=infer([1.0, 1.0])))
                await asyncio.to_thread(wait_status, agent, lambda status: status["in_flight"] == 3)
                gone.cancel()
                return (await busy), (await stays)

        busy, stays = asyncio.run(scenario())
        assert data(busy) == [1.0]
        assert data(stays) == [2.0, 2.0], "the row of the client that left is not in the batch"
        with agent.http as http:
            assert 'code="499"' in http.get("/metrics").text


def test_buckets_pad_what_the_model_sees_and_not_what_clients_see(serve):
    batching = Batching(max_rows=8, buckets=(4, 8))
    with serve("CountsRows", batching=batching) as agent:
        assert data(asyncio.run(ask_all(agent, [infer([1.0, 2.0, 3.0])]))[0]) == [4.0] * 3
        assert data(asyncio.run(ask_all(agent, [infer([1.0] * 5)]))[0]) == [8.0] * 5
        assert statistics(agent)["inference_count"] == 8


def test_what_would_miss_its_deadline_is_refused_at_once_with_the_reason(serve):
    batching = Batching(max_rows=1, adaptive=True)
    with serve("CountsRows", batching=batching) as agent:
        for _ in range(12):
            asyncio.run(ask_all(agent, [infer([100.0])]))
        headers = {wire.TIMEOUT_HEADER: "450"}
        replies = asyncio.run(ask_all(agent, [infer([100.0]) for _ in range(12)], headers))
        codes = [reply.status_code for reply in replies]
        assert set(codes) == {200, 503}, codes
        refused = next(reply for reply in replies if reply.status_code == 503)
        assert re.search(
            r"the answer would take about [\d.]+ s, and its deadline is in 0\.\d+ s", refused.json()["error"]
        )
        assert refused.headers["retry-after"] == "1"
        with agent.http as http:
            assert 'reason="overloaded"' in http.get("/metrics").text


def test_deadlines_come_from_header_and_parameter_and_are_checked(serve):
    with serve("CountsRows") as agent, agent.http as http:
        url = "/v2/models/digits/infer"
        for request in (
            {"json": infer([5000.0]), "headers": {wire.TIMEOUT_HEADER: "100"}},
            {"json": infer([1.0], parameters={"timeout": 100_000})},
        ):
            reply = http.post(url, **request)
            assert reply.status_code == 504
            assert reply.json() == {"error": "no answer within 0.1 s"}
        for text in ("soon", "-1", "0", "nan", "inf"):
            reply = http.post(url, json=infer([1.0]), headers={wire.TIMEOUT_HEADER: text})
            assert reply.status_code == 400
            assert wire.TIMEOUT_HEADER in reply.json()["error"]


def test_a_full_queue_and_too_many_at_once_are_told_apart(serve):
    limits = Limits(max_queue=2, drain_grace_s=0.0)
    with serve("CountsRows", limits=limits, batching=Batching(max_rows=1)) as agent:
        busy = threading.Thread(target=lambda: asyncio.run(ask_all(agent, [infer([1000.0])])))
        busy.start()
        wait_status(agent, lambda status: status["busy_s"] > 0)
        codes = [r.status_code for r in asyncio.run(ask_all(agent, [infer([1.0])] * 8))]
        busy.join()
        assert codes.count(200) == 2
        assert codes.count(503) == 6


def test_a_limit_of_requests_at_one_time_answers_429(serve):
    with serve("CountsRows", max_concurrency=3, batching=Batching(max_rows=1)) as agent:
        replies = asyncio.run(ask_all(agent, [infer([200.0])] * 8))
        codes = [reply.status_code for reply in replies]
        assert codes.count(200) == 3
        assert codes.count(429) == 5
        refused = next(reply for reply in replies if reply.status_code == 429)
        assert refused.headers["retry-after"] == "1"
        assert "limit" in refused.json()["error"]
        assert refused.headers[wire.VERSION_HEADER] == "digits-cnn@2"


def test_the_cache_answers_equal_requests_and_no_others(serve):
    cache = Cache(max_bytes=2**20, ttl_s=60)
    with serve("CountsRows", cache=cache, batching=Batching(max_rows=1)) as agent:
        for body in (
            infer([1.0], id="a"),
            infer([1.0], id="b"),
            infer([1.0], parameters={"k": 1}),
            infer([2.0]),
        ):
            reply = asyncio.run(ask_all(agent, [body]))[0]
            assert data(reply) == [1.0]
            assert reply.json().get("id") == body.get("id")
        stats = statistics(agent)
        assert stats["execution_count"] == 3
        assert stats["inference_stats"]["cache_hit"]["count"] == 1
        assert stats["inference_stats"]["cache_miss"]["count"] == 3
        with agent.http as http:
            text = http.get("/metrics").text
        assert re.search(r"^model_cache_hits_total\{.*\} 1\.0$", text, re.MULTILINE)
        assert re.search(r"^model_cache_bytes\{.*\} [1-9]", text, re.MULTILINE)


def test_the_health_checker_notices_a_model_that_has_sickened(serve):
    with serve("Sickens", check_interval_s=0.05) as agent:
        check_of(agent, lambda check: check["state"] == "healthy")
        with agent.http as http:
            assert http.get("/ready").status_code == 200
            assert statistics(agent)["execution_count"] == 0, "tests are no traffic"
            assert http.post("/predict", json={"input": [[-1.0]]}).status_code == 500
            check = check_of(agent, lambda check: check["failures"] >= 3)
            assert check["state"] == "unhealthy"
            assert "RuntimeError" in check["last_error"]
            assert abs(check["last_error_at"] - time.time()) < 30
            assert http.get("/ready").status_code == 503
            assert re.search(r'model_check_state\{.*state="unhealthy".*\} 1\.0', http.get("/metrics").text)


def test_a_collector_that_is_gone_does_not_hold_the_agent(tmp_path, nursery):
    """It takes connections and never answers: the last spans are given two seconds, not the SDK's thirty."""
    folder = models.save_torchscript(models.Slow(), tmp_path / "model")
    with socket.create_server(("127.0.0.1", 0)) as collector:
        url = f"http://127.0.0.1:{collector.getsockname()[1]}"
        manifest = make_manifest(folder, models.SCALAR, otlp_endpoint=url, limits=Limits(drain_grace_s=0.0))
        with start_agent(manifest, tmp_path, nursery=nursery) as agent:
            with agent.http as http:
                assert http.post("/predict", json={"input": [[1.0]]}).status_code == 200
            agent.process.terminate()
            assert agent.process.wait(6) == 0


class Collector:
    """A collector of OpenTelemetry traces, OTLP over HTTP, that keeps the spans."""

    def __init__(self):
        self.spans = []
        keep = self.spans.extend

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    import gzip

                    body = gzip.decompress(body)
                export = ExportTraceServiceRequest.FromString(body)
                keep(span for one in export.resource_spans for two in one.scope_spans for span in two.spans)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


def test_traces_continue_the_clients_and_keep_its_sampling(tmp_path, nursery):
    folder = models.save_torchscript(models.Slow(), tmp_path / "model")
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    with Collector() as collector:
        manifest = make_manifest(
            folder, models.SCALAR, otlp_endpoint=collector.url, limits=Limits(drain_grace_s=0.0)
        )
        with start_agent(manifest, tmp_path, nursery=nursery) as agent:
            with agent.http as http:
                for sampled in ("01", "00"):
                    headers = {"traceparent": f"00-{trace}-{parent}-{sampled}"}
                    assert http.post("/predict", json={"input": [[40.0]]}, headers=headers).status_code == 200
            with tritonclient.grpc.InferenceServerClient(manifest.grpc_address) as client:
                tensor = tritonclient.grpc.InferInput("x", [1, 1], "FP32")
                tensor.set_data_from_numpy(np.array([[40.0]], np.float32))
                client.infer("digits", [tensor], headers={"traceparent": f"00-{trace}-{parent}-01"})
            agent.process.terminate()
            assert agent.process.wait(60) == 0
    spans = {span.name: span for span in collector.spans}
    stages = ["infer", "postprocess", "predict", "preprocess", "queue"]
    assert sorted(span.name for span in collector.spans) == sorted(stages * 2), "one over REST, one over gRPC"
    assert {span.trace_id.hex() for span in collector.spans} == {trace}
    assert {span.parent_span_id.hex() for span in collector.spans if span.name == "infer"} == {parent}
    assert spans["predict"].parent_span_id == spans["infer"].span_id
    assert spans["predict"].end_time_unix_nano - spans["predict"].start_time_unix_nano >= 2_000_000


@pytest.mark.parametrize(
    ("execution", "largest"),
    [(Execution(autocast="bf16"), 0.5), (Execution(channels_last=True), 1e-4)],
)
def test_execution_options_are_measured_against_the_model_as_stored(tmp_path, execution, largest, nursery):
    folder = models.save_torchscript(models.digits_model(), tmp_path / "model")
    options = ServingOptions(execution=execution)
    images, _ = models.digits_data()
    wanted = models.digits_model()(torch.from_numpy(images[:200])).argmax(dim=1).numpy()
    manifest = make_manifest(folder, models.DIGITS, options=options)
    with start_agent(manifest, tmp_path, nursery=nursery) as agent:
        effect = agent.status()["effect"]
        assert effect["plain_s"] > 0
        assert effect["optimized_s"] > 0
        assert 0 <= effect["largest_difference"] < largest
        with agent.http as http:
            answer = http.post("/predict", json={"input": images[:200].tolist()}).json()
        found = np.array(answer["predictions"]).argmax(axis=1)
        assert (found == wanted).mean() > 0.97


def test_compiling_torchscript_is_refused_with_a_way_out(tmp_path, nursery):
    folder = models.save_torchscript(models.digits_model(), tmp_path / "model")
    options = ServingOptions(execution=Execution(compile=True))
    manifest = make_manifest(folder, models.DIGITS, options=options)
    with start_agent(manifest, tmp_path, wait=False, nursery=nursery) as agent:
        assert agent.process.wait(60) == 3
        reason = json.loads(agent.failure_path.read_text())["reason"]
    assert reason.startswith("torch.compile does not apply to TorchScript; turn the option off")


def test_examples_of_the_version_warm_it_up(tmp_path, nursery):
    folder = models.save_torchscript(models.digits_model(), tmp_path / "model")
    images, _ = models.digits_data()
    examples = tmp_path / "examples.json"
    examples.write_text(json.dumps({"image": images[:1].tolist()}))
    manifest = make_manifest(folder, models.DIGITS, examples=examples)
    with start_agent(manifest, tmp_path, nursery=nursery) as agent:
        check_of(agent, lambda check: check["state"] == "healthy")
        assert "cannot be used" not in agent.log


def test_examples_that_do_not_fit_are_told_and_left(tmp_path, nursery):
    folder = models.save_torchscript(models.digits_model(), tmp_path / "model")
    examples = tmp_path / "examples.json"
    examples.write_text('{"picture": [[1]]}')
    manifest = make_manifest(folder, models.DIGITS, examples=examples)
    with start_agent(manifest, tmp_path, nursery=nursery) as agent:
        assert "the example inputs cannot be used: unknown input 'picture'" in agent.log
