"""What a real agent counts and keeps of a rollout's requests, and who gets to see it."""

import socket
import struct
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from control_plane import agent_client
from control_plane.debugging import inputs
from control_plane.domain import captured_values, pairs
from control_plane.gateway.traffic_plan import Backend, Comparison, Mirror, Replica, TrafficPlan
from serving_agent.contract import proto, wire
from serving_agent.contract.capture import ROUTE
from serving_agent.contract.options import Cache, Sampling, ServingOptions
from serving_agent.rollout_recorder import MOST_PER_S
from tests.fakes import models
from tests.fakes.agents import make_manifest, start_agent
from tests.fakes.envoy import running_envoy
from tests.fakes.waiting import wait_until

STABLE, CANDIDATE = "digits-cnn@1", "digits-cnn@2"


def served(nursery, folder, handler, **changes):
    """An agent with a handler of tests.fakes.operator_handlers, which takes and returns [rows, 1]."""
    name = f"tests.fakes.operator_handlers:{handler}"
    options = changes.pop("options", ServingOptions(check_interval_s=0.0))
    manifest = make_manifest(
        folder, models.SCALAR, handler=name, allowed_handlers=(name,), options=options, **changes
    )
    return start_agent(manifest, folder / "agent", nursery=nursery)


@pytest.fixture(scope="module")
def agent(tmp_path_factory, nursery):
    """Doubles, but answers NaN to -3 and fails on -1."""
    with served(nursery, tmp_path_factory.mktemp("raises"), "Raises") as running:
        yield running


def part_of(rollout, request_id):
    return {wire.ROLLOUT_HEADER: rollout, wire.REQUEST_ID_HEADER: request_id}


def ask(agent, *values, headers=None, path="/v2/models/digits/infer"):
    rows = [[float(value)] for value in values]
    tensor = {"name": "x", "datatype": "FP32", "shape": [len(rows), 1], "data": rows}
    body = {"input": rows} if path == "/predict" else {"inputs": [tensor]}
    with agent.http as http:
        return http.post(path, json=body, headers=headers)


def ask_grpc(channel, value, metadata=(), timeout=60):
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 1]}
    request = proto.message_class("ModelInferRequest")(
        model_name="digits", inputs=[tensor], raw_input_contents=[struct.pack("<f", value)]
    )
    call = channel.unary_unary(f"/{wire.GRPC_SERVICE}/ModelInfer")
    return call(request.SerializeToString(), timeout=timeout, metadata=metadata)


def counted(agent):
    """The agent's counters by name; of rows by bin."""
    with agent.http as http:
        families = text_string_to_metric_families(http.get("/metrics").text)
    samples = [sample for family in families for sample in family.samples]
    found = {sample.name: sample.value for sample in samples if sample.name.endswith("answers_total")}
    bins = {
        sample.labels["bin"]: sample.value for sample in samples if sample.name == "model_output_class_total"
    }
    return found["model_answers_total"], found["model_nonfinite_answers_total"], bins


def increase(before, after):
    """What was counted between the two."""
    bins = {name: count - before[2].get(name, 0) for name, count in after[2].items()}
    return (
        *(new - old for old, new in zip(before, after[:2], strict=False)),
        {k: v for k, v in bins.items() if v},
    )


def kept(agent, rollout, after=0):
    page = agent_client.captures(agent.manifest.rest_address, after, rollout)
    assert page is not None
    return page.captures


def wait_kept(agent, rollout, count, after=0):
    def enough():
        found = kept(agent, rollout, after)
        return found if len(found) >= count else None

    return wait_until(enough, timeout_s=20, what=lambda: str(kept(agent, rollout)), pause_s=0.02)


def test_requests_outside_a_rollout_leave_no_trace(agent):
    before = counted(agent)
    assert ask(agent, 1.0, headers={wire.REQUEST_ID_HEADER: "alone"}).status_code == 200
    with grpc.insecure_channel(agent.manifest.grpc_address) as channel:
        ask_grpc(channel, 1.0, ((wire.REQUEST_ID_HEADER, "alone"),))
    assert increase(before, counted(agent)) == (0, 0, {})
    assert not [each for each in kept(agent, "") if each.request_id == "alone"]


@pytest.mark.parametrize("path", ["/v2/models/digits/infer", "/predict"])
def test_answers_over_rest_are_counted_and_kept(agent, path):
    before, rollout = counted(agent), f"rest {path}"
    assert ask(agent, 3.0, -20.0, headers=part_of(rollout, "q1"), path=path).status_code == 200
    assert increase(before, counted(agent)) == (1, 0, {"+2^2": 1, "-2^5": 1})
    (one,) = kept(agent, rollout)
    assert (one.request_id, one.error, one.nonfinite) == ("q1", "", False)
    assert captured_values.inputs_of(one) == {"x": [[3.0], [-20.0]]}
    assert captured_values.answer_of(one)["outputs"]["y"]["data"] == [[6.0], [-40.0]]


def test_answers_over_grpc_are_counted_and_kept(agent):
    before = counted(agent)
    with grpc.insecure_channel(agent.manifest.grpc_address) as channel:
        ask_grpc(channel, 3.0, tuple(part_of("grpc", "q1").items()))
        ask_grpc(channel, -3.0, tuple(part_of("grpc", "q2").items()))
    assert increase(before, counted(agent)) == (2, 1, {"+2^2": 1, "nan": 1})
    assert [(one.request_id, one.nonfinite) for one in kept(agent, "grpc")] == [("q1", False), ("q2", True)]


def test_nan_is_an_answer_though_json_cannot_carry_it_and_a_failure_is_none(agent):
    before = counted(agent)
    assert ask(agent, -3.0, headers=part_of("nan", "q1")).status_code == 500
    assert ask(agent, -1.0, headers=part_of("nan", "q2")).status_code == 500
    assert increase(before, counted(agent)) == (1, 1, {"nan": 1})
    answered, failed = kept(agent, "nan")
    assert (answered.nonfinite, answered.error) == (True, "")
    assert (failed.outputs, failed.error) == ((), "model_failed")


def test_pages_go_on_where_the_last_one_ended(agent):
    for number in range(5):
        ask(agent, number, headers=part_of("pages", f"q{number}"))
    seen, after, more = [], 0, True
    while more:
        page = agent_client.captures(agent.manifest.rest_address, after, "pages", limit=2)
        seen += [one.request_id for one in page.captures]
        after, more = page.last, page.more
    assert seen == [f"q{number}" for number in range(5)]
    assert not agent_client.captures(agent.manifest.rest_address, after, "pages").captures


def test_large_inputs_are_fetched_one_by_one(agent):
    ask(agent, *range(1500), headers=part_of("large", "q"))
    (one,) = kept(agent, "large")
    assert captured_values.inputs_of(one) is None
    whole = agent_client.captured(agent.manifest.rest_address, one.seq)
    assert captured_values.inputs_of(whole) == {"x": [[float(value)] for value in range(1500)]}
    assert agent_client.captured(agent.manifest.rest_address, one.seq + 10**6) is None


def test_a_busy_second_is_sampled(tmp_path, nursery):
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}
    with served(nursery, tmp_path, "Doubles") as agent, agent.http as http:
        for number in range(300):
            headers = part_of("busy", f"q{number}")
            assert http.post("/v2/models/digits/infer", json={"inputs": [tensor]}, headers=headers).is_success
        assert counted(agent) == (300, 0, {"+2^1": 300})
        by_second = Counter(int(one.at) for one in kept(agent, "busy"))
    # the sampler's seconds and the clock's begin at different times: parts of two may fall into one
    assert 1 <= max(by_second.values()) <= 2 * MOST_PER_S


@pytest.mark.parametrize("query", ["after=-1", "after=x", "limit=1e3", "after=" + "9" * 19])
def test_a_query_that_makes_no_sense_is_refused(agent, query):
    with agent.http as http:
        assert http.get(f"{ROUTE}?{query}").status_code == 400


def test_nobody_at_an_address_has_no_captures(tmp_path):
    assert agent_client.captures(f"unix:{tmp_path}/nobody") is None
    assert agent_client.captured(f"unix:{tmp_path}/nobody", 1) is None


def test_cached_answers_count_like_others(tmp_path, nursery):
    options = ServingOptions(check_interval_s=0.0, cache=Cache(max_bytes=100_000))
    with served(nursery, tmp_path, "Doubles", options=options) as agent:
        for number in range(3):
            ask(agent, 1.0, headers=part_of("r", f"q{number}"))
        assert counted(agent) == (3, 0, {"+2^1": 3})
        assert len({one.outputs[0].data for one in kept(agent, "r")}) == 1
        assert len(kept(agent, "r")) == 3


def test_an_answer_that_nobody_waits_for_is_kept(tmp_path, nursery):
    """The client goes away, or runs out of time, while the model works on its request."""
    with served(nursery, tmp_path, "CountsRows") as agent:
        host, _, port = agent.manifest.rest_address.partition(":")
        body = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,1],"data":[300]}]}'
        head = (
            f"POST /v2/models/digits/infer HTTP/1.1\r\nhost: a\r\n{wire.ROLLOUT_HEADER}: r\r\n"
            f"{wire.REQUEST_ID_HEADER}: gone\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        with socket.create_connection((host, int(port))) as client:
            client.sendall(head.encode() + body)
            wait_until(
                lambda: agent.status()["busy_s"] > 0, timeout_s=20, what=lambda: agent.log, pause_s=0.005
            )
        late = part_of("r", "late") | {wire.TIMEOUT_HEADER: "450"}
        assert ask(agent, 300.0, headers=late).status_code in (200, 504)
        assert [one.request_id for one in wait_kept(agent, "r", 2)] == ["gone", "late"]
        with grpc.insecure_channel(agent.manifest.grpc_address) as channel, pytest.raises(grpc.RpcError):
            ask_grpc(channel, 2500.0, tuple(part_of("r", "cut").items()), timeout=1.0)
        assert wait_kept(agent, "r", 3)[-1].request_id == "cut"


# through a real gateway


def replica_of(agent):
    manifest = agent.manifest
    return Replica(manifest.agent_id, manifest.rest_address, manifest.grpc_address)


@pytest.fixture(scope="module")
def compared(tmp_path_factory, nursery):
    """Stable doubles, the candidate echoes; every request is copied to it."""
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("c")
        agents = {}
        for version, handler in ((1, "Doubles"), (2, "Echoes")):
            home = folder / str(version)
            home.mkdir()
            addresses = {"rest_address": f"unix:{home}/r", "grpc_address": f"unix:{home}/g"}
            names = {"version": version, "agent_id": f"agent-{version}"}
            running = served(nursery, home, handler, **names, **addresses)
            agents[f"digits-cnn@{version}"] = stack.enter_context(running)
        envoy = stack.enter_context(running_envoy(tmp_path_factory.mktemp("home")))
        backends = [
            Backend(version, (replica_of(one),), float(version == STABLE)) for version, one in agents.items()
        ]
        plan = TrafficPlan(
            "digits",
            tuple(backends),
            mirror=Mirror(CANDIDATE, 1.0),
            comparison=Comparison(rollout="r1", stable=STABLE, candidate=CANDIDATE, tester_header=True),
        )
        envoy.apply(plan)
        assert b" 200 OK" in gateway_ask(envoy, 0)
        yield envoy, agents, plan


def gateway_ask(envoy, value):
    with socket.create_connection(("127.0.0.1", envoy.settings.gateway_port)) as client:
        body = f'{{"input": [[{value}]]}}'
        client.sendall(
            f"POST /e/digits/predict HTTP/1.1\r\nhost: a\r\nconnection: close\r\n"
            f"content-length: {len(body)}\r\n\r\n{body}".encode()
        )
        return b"".join(iter(lambda: client.recv(65536), b""))


def test_copies_are_paired_with_their_originals(compared):
    envoy, agents, _ = compared
    newest = max((one.seq for one in kept(agents[STABLE], "")), default=0)
    for number in range(1, 6):
        assert b" 200 OK" in gateway_ask(envoy, number)
    with grpc.insecure_channel(f"127.0.0.1:{envoy.settings.gateway_port}") as channel:
        ask_grpc(channel, 7.0)
    originals = wait_kept(agents[STABLE], "r1", 6, newest)

    def all_joined():
        found = pairs.join(originals, kept(agents[CANDIDATE], "r1"))
        return found if not found.stable else None

    joined = wait_until(all_joined, timeout_s=20, what=lambda: agents[CANDIDATE].log, pause_s=0.02)
    assert len(joined.pairs) == 6
    found = pairs.compared(joined.pairs)
    assert [(each.comparison.agree, each.comparison.distance) for each in found] == [(False, 0.5)] * 6
    shown = [captured_values.inputs_of(each.pair.stable) for each in pairs.worst(found, 10)]
    assert sorted(value["x"][0][0] for value in shown) == [1, 2, 3, 4, 5, 7]


@pytest.mark.parametrize("prefix", ["/e/digits", "/preview/digits", "/v2/models/digits", ""])
@pytest.mark.parametrize(
    "extra",
    [
        "",
        "connection: x-forwarded-for, x-request-id, x-envoy-expected-rq-timeout-ms\r\n",
        "x-request-id:\r\nx-forwarded-for:\r\n",
        "x-envoy-upstream-rq-timeout-ms: 0\r\n",
        f"{wire.VERSION_HEADER}: candidate\r\n",
    ],
    ids=["plain", "hop by hop", "empty", "no timeout", "tester"],
)
@pytest.mark.parametrize(
    "route", [ROUTE, "//internal/captures", "/internal%2Fcaptures", "/x/..;/internal/captures"]
)
def test_captures_do_not_leave_through_the_gateway(compared, prefix, extra, route):
    envoy, _, _ = compared
    with socket.create_connection(("127.0.0.1", envoy.settings.gateway_port)) as client:
        client.sendall(
            f"GET {prefix}{route} HTTP/1.1\r\nhost: a\r\n{extra}".encode()
            + (b"connection: close\r\n" if "connection" not in extra else b"")
            + b"\r\n"
        )
        client.settimeout(5)
        answer = client.recv(65536)
    assert answer.split(b" ")[1] in (b"400", b"404"), answer
    assert b'"captures"' not in answer


def test_a_rollout_that_has_ended_keeps_no_more(compared):
    envoy, agents, plan = compared
    envoy.apply(replace(plan, mirror=None, comparison=None))
    try:
        before = len(kept(agents[STABLE], ""))
        assert b" 200 OK" in gateway_ask(envoy, 1)
        assert len(kept(agents[STABLE], "")) == before
    finally:
        envoy.apply(plan)


def test_samples_are_kept_outside_a_rollout_too_and_not_shown_to_clients(tmp_path, nursery):
    options = ServingOptions(check_interval_s=0.0, sampling=Sampling(per_minute=60, redact=("y",)))
    with served(nursery, tmp_path, "Raises", options=options) as agent:
        assert ask(agent, 1.0, headers={wire.REQUEST_ID_HEADER: "alone"}).status_code == 200
        assert ask(agent, 2.0, headers=part_of("r", "together")).status_code == 200
        address = agent.manifest.rest_address
        page = wait_until(
            lambda: (found := agent_client.samples(address)) and len(found.captures) == 2 and found,
            timeout_s=20,
            what=lambda: str(agent_client.samples(address)),
        )
        assert [one.request_id for one in page.captures] == ["alone", "together"]
        assert captured_values.inputs_of(page.captures[0]) == {"x": [[1.0]]}
        assert [(each.data, each.left_out) for each in page.captures[0].outputs] == [(None, "redacted")]
        assert [inputs.are_whole(part) for part in (page.captures[0].inputs, page.captures[0].outputs)] == [
            True, False,
        ]  # fmt: skip
        assert ask(agent, *range(1500)).status_code == 200
        large = wait_until(
            lambda: (found := agent_client.samples(address, page.last)) and found.captures,
            timeout_s=20,
            what=lambda: agent.log,
        )[0]
        assert [(each.data, each.left_out) for each in large.inputs] == [(None, "page")]
        assert inputs.are_whole(large.inputs), "it comes when it is asked for"
        (whole,) = inputs.of_captured(agent_client.sampled(address, large.seq).inputs, models.SCALAR)
        assert (whole.shape, len(whole.data)) == ((1500, 1), 6000)
        assert agent_client.sampled(address, page.captures[1].seq) == page.captures[1]
        (of_rollout,) = wait_kept(agent, "r", 1)
        assert [each.data for each in of_rollout.outputs] == [None], "redacted here too"
        with agent.http as http:
            forwarded = http.get("/internal/samples", headers={"x-envoy-internal": "true"})
        assert forwarded.status_code == 404
