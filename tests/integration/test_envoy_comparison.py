"""Two versions side by side behind a real Envoy: who gets which requests, and which of them are evidence."""

from __future__ import annotations

import json
import os
import signal
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from control_plane.gateway.envoy_files import gateway_files
from control_plane.gateway.traffic_plan import Comparison, Mirror, Replica, Sticky, TrafficPlan
from control_plane.telemetry.series import UNIT_REQUESTS
from control_plane.telemetry.unit_log import UnitLog
from control_plane.telemetry.units import Units
from serving_agent.contract import proto
from serving_agent.contract.wire import ROLLOUT_HEADER
from tests.fakes import upstream
from tests.fakes.envoy import RunningEnvoy, plan, running_envoy
from tests.fakes.load import Load
from tests.fakes.stack import settings_for
from tests.fakes.upstream import Behaviour, Upstream
from tests.fakes.waiting import wait_until

STABLE, CANDIDATE = "digits@1", "digits@2"
COMPARED = Comparison(rollout="r7", stable=STABLE, candidate=CANDIDATE)
TESTED = replace(COMPARED, tester_header=True)
Start = Callable[..., Upstream]


@pytest.fixture(scope="module")
def envoy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEnvoy]:
    with running_envoy(tmp_path_factory.mktemp("home")) as running:
        yield running


@pytest.fixture
def start(tmp_path: Path, envoy: RunningEnvoy) -> Iterator[Start]:
    """Start an agent of a version; all end with the test, after the gateway has forgotten them."""
    running: list[Upstream] = []

    def start_one(
        agent: str, version: str, behaviour: Behaviour = "answer", delay_s: float = 0.0
    ) -> Upstream:
        running.append(upstream.start(tmp_path, agent, version, delay_s, behaviour))
        return running[-1]

    yield start_one
    envoy.gateway.publish_routes([])
    envoy.gateway.publish_backends([])
    for each in running:
        each.kill()


@pytest.fixture
def http(envoy: RunningEnvoy) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=envoy.url, timeout=60) as client:
        yield client


def split(endpoint: str, stable: Replica, candidate: Replica, share: float, **extras: Any) -> TrafficPlan:
    made = plan(endpoint, v1=(1 - share, [stable]), v2=(share, [candidate]))
    return replace(made, **extras)


def version_of(answer: httpx.Response) -> str:
    return str(answer.raise_for_status().json()["version"])


def infer(envoy: RunningEnvoy, model: str, size: int = 0, **metadata: str) -> str:
    """The version that answers a ModelInfer call."""
    request = proto.message_class("ModelInferRequest")(model_name=model, raw_input_contents=[bytes(size)])
    with grpc.insecure_channel(f"127.0.0.1:{envoy.settings.gateway_port}") as channel:
        call = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=proto.message_class("ModelInferResponse").FromString,
        )
        pairs = [(name.replace("_", "-"), value) for name, value in metadata.items()]
        return str(call(request, metadata=pairs, timeout=60).model_version)


def counted(envoy: RunningEnvoy, name: str, endpoint: str, **tags: str) -> int:
    """The sum of one of Envoy's per-request statistics over the lines that have *tags*."""
    wanted = [f'{tag}="{value}"' for tag, value in {"endpoint": endpoint, **tags}.items()]
    lines = [line for line in envoy.gateway.metrics().splitlines() if line.startswith(f"envoy_gwm_{name}{{")]
    return sum(int(line.rpartition(" ")[2]) for line in lines if all(tag in line for tag in wanted))


def wait_counted(envoy: RunningEnvoy, wanted: int, name: str, endpoint: str, **tags: str) -> None:
    wait_until(
        lambda: counted(envoy, name, endpoint, **tags) == wanted,
        timeout_s=5,
        what=lambda: f"{wanted} of {name} {tags}: {counted(envoy, name, endpoint, **tags)}",
    )


# --- sticky ---


@pytest.mark.parametrize("kind", ["header", "cookie"])
def test_sticky_clients_stay_and_move_only_to_the_candidate(
    envoy: RunningEnvoy, start: Start, http: httpx.Client, kind: Any
) -> None:
    stable, candidate = start("a", STABLE).replica, start("b", CANDIDATE).replica
    at: dict[str, str] = {}
    for share in (0.0, 0.1, 0.3, 0.75, 1.0):
        envoy.apply(split("digits", stable, candidate, share, sticky=Sticky(kind, "session")))
        for unit in (f"user-{n}" for n in range(120)):
            headers = {"cookie": f"session={unit}"} if kind == "cookie" else {"session": unit}
            seen = {version_of(http.get("/e/digits/x", headers=headers)) for _ in range(2)}
            assert len(seen) == 1, "one client, one version"
            assert (at.get(unit), *seen) != (CANDIDATE, STABLE), "nobody goes back while the share rises"
            at[unit] = seen.pop()
        on_candidate = sum(version == CANDIDATE for version in at.values())
        # 120 units: five standard deviations are at most 27
        assert abs(on_candidate - 120 * share) <= 27


def test_clients_without_a_session_are_split_at_random(
    envoy: RunningEnvoy, start: Start, http: httpx.Client
) -> None:
    stable, candidate = start("a", STABLE).replica, start("b", CANDIDATE).replica
    envoy.apply(split("digits", stable, candidate, 0.5, sticky=Sticky("header", "session")))

    assert {version_of(http.get("/e/digits/x")) for _ in range(40)} == {STABLE, CANDIDATE}


# --- testers and previews ---


@pytest.mark.parametrize(
    ("asked", "version"),
    [("stable", STABLE), ("candidate", CANDIDATE), (STABLE, STABLE), (CANDIDATE, CANDIDATE)],
)
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_testers_choose_their_version(
    envoy: RunningEnvoy, start: Start, http: httpx.Client, asked: str, version: str, share: float
) -> None:
    stable, candidate = start("a", STABLE).replica, start("b", CANDIDATE).replica
    envoy.apply(split("digits", stable, candidate, share, comparison=TESTED))

    for path in ("/e/digits/predict", "/v2/models/digits/infer"):
        answers = [http.post(path, headers={"x-signalbox-version": asked}) for _ in range(5)]
        assert {version_of(answer) for answer in answers} == {version}
        assert not any(ROLLOUT_HEADER in answer.json()["headers"] for answer in answers)
    assert infer(envoy, "digits", x_signalbox_version=asked) == version
    assert infer(envoy, "any", x_signalbox_version=asked, x_endpoint="digits") == version


def test_the_testers_header_means_nothing_where_it_is_not_allowed(
    envoy: RunningEnvoy, start: Start, http: httpx.Client
) -> None:
    stable, candidate = start("a", STABLE).replica, start("b", CANDIDATE).replica
    envoy.apply(split("digits", stable, candidate, 0.0, comparison=COMPARED))

    assert version_of(http.get("/e/digits/x", headers={"x-signalbox-version": "candidate"})) == STABLE
    assert infer(envoy, "digits", x_signalbox_version="candidate") == STABLE


def test_an_unknown_version_is_split_like_any_request(
    envoy: RunningEnvoy, start: Start, http: httpx.Client
) -> None:
    stable, candidate = start("a", STABLE).replica, start("b", CANDIDATE).replica
    envoy.apply(split("digits", stable, candidate, 0.0, comparison=TESTED))

    answer = http.get("/e/digits/x", headers={"x-signalbox-version": "digits@11"})
    assert version_of(answer) == STABLE
    assert answer.json()["headers"][ROLLOUT_HEADER] == "r7"


def test_the_preview_path_reaches_the_candidate_alone(
    envoy: RunningEnvoy, start: Start, http: httpx.Client
) -> None:
    stable, candidate = start("a", STABLE).replica, start("b", CANDIDATE).replica
    envoy.apply(
        split("digits", stable, candidate, 0.0, comparison=COMPARED), plan("plain", v1=(1.0, [stable]))
    )

    answer = http.post("/preview/digits/v2/models/digits/infer", params={"k": "v"}, content=b"123")
    assert (version_of(answer), answer.json()["path"]) == (CANDIDATE, "/v2/models/digits/infer")
    assert (answer.json()["query"], answer.json()["length"]) == ("k=v", 3)
    assert ROLLOUT_HEADER not in answer.json()["headers"]
    for unknown in ("plain", "dogs", "digitss"):
        refused = http.get(f"/preview/{unknown}/predict")
        assert refused.status_code == 404
        assert refused.json() == {"error": f"no version of an endpoint named {unknown} is being previewed"}


def test_a_preview_without_a_ready_candidate_says_so(
    envoy: RunningEnvoy, start: Start, http: httpx.Client, tmp_path: Path
) -> None:
    gone = upstream.replica_at(tmp_path, "gone")
    compared = split("digits", start("a", STABLE).replica, gone, 0.0, comparison=COMPARED)
    envoy.gateway.publish_backends([compared])
    envoy.wait_healthy("digits", STABLE, 1)
    envoy.gateway.publish_routes([compared])

    answer = http.get("/preview/digits/x")
    assert (answer.status_code, answer.json()) == (503, {"error": "endpoint digits has no ready agent"})
    assert version_of(http.get("/e/digits/x")) == STABLE


# --- evidence ---


def test_only_split_requests_are_evidence(envoy: RunningEnvoy, start: Start, http: httpx.Client) -> None:
    stable, candidate = start("a", STABLE).replica, start("b", CANDIDATE).replica
    envoy.apply(
        split("evident", stable, candidate, 0.5, comparison=TESTED), plan("uncompared", v1=(1.0, [stable]))
    )

    versions = Counter(version_of(http.get("/e/evident/x")) for _ in range(40))
    versions[infer(envoy, "evident")] += 1
    for asked in ("stable", "candidate"):
        assert http.get("/e/evident/fail", headers={"x-signalbox-version": asked}).status_code == 500
        assert http.get("/preview/evident/fail").status_code == 500
    spoofed = http.get("/e/uncompared/x", headers={ROLLOUT_HEADER: "mine"})
    assert http.get("/e/nobody/x", headers={ROLLOUT_HEADER: "mine"}).status_code == 404

    for version, n in versions.items():
        for name in ("compared", "compared_us_count", "compared_ttfb_us_count", "compared_tries"):
            wait_counted(envoy, n, name, "evident", version=version)
    assert counted(envoy, "compared", "evident", code="500") == 0
    assert counted(envoy, "requests", "evident", code="500") == 4, "they are requests all the same"
    assert ROLLOUT_HEADER not in spoofed.json()["headers"]
    assert [counted(envoy, "compared", name) for name in ("uncompared", "")] == [0, 0]


def test_a_clients_own_rollout_is_replaced(envoy: RunningEnvoy, start: Start, http: httpx.Client) -> None:
    stable, candidate = start("a", STABLE).replica, start("b", CANDIDATE).replica
    envoy.apply(split("digits", stable, candidate, 0.5, comparison=COMPARED))

    answers = [http.get("/e/digits/x", headers={ROLLOUT_HEADER: "mine"}) for _ in range(20)]
    assert {answer.json()["headers"][ROLLOUT_HEADER] for answer in answers} == {"r7"}


def test_a_comparison_that_ended_leaves_no_mark(
    envoy: RunningEnvoy, start: Start, http: httpx.Client
) -> None:
    stable, candidate = start("a", STABLE).replica, start("b", CANDIDATE).replica
    envoy.apply(split("digits", stable, candidate, 0.5, comparison=TESTED))
    assert ROLLOUT_HEADER in http.get("/e/digits/x").json()["headers"]
    envoy.apply(split("digits", stable, candidate, 0.0))

    answers = [http.get("/e/digits/x", headers={"x-signalbox-version": "candidate"}) for _ in range(10)]
    assert {version_of(answer) for answer in answers} == {STABLE}
    assert not any(ROLLOUT_HEADER in answer.json()["headers"] for answer in answers)
    assert http.get("/preview/digits/x").status_code == 404


@pytest.mark.parametrize(
    ("behaviour", "code", "flags"), [("503", "503", "-"), ("reset", "0", "UC"), ("gone", "0", "UF")]
)
def test_failures_that_a_retry_hides_are_counted_as_tries(
    envoy: RunningEnvoy,
    start: Start,
    http: httpx.Client,
    behaviour: str,
    code: str,
    flags: str,
    tmp_path: Path,
) -> None:
    endpoint = f"masked-{behaviour}"
    gone = behaviour == "gone"
    replica = upstream.replica_at(tmp_path, "g") if gone else start("b", CANDIDATE, behaviour).replica
    compared = split(endpoint, start("a", STABLE).replica, replica, 0.5, comparison=TESTED)
    envoy.gateway.publish_backends([compared])
    envoy.wait_healthy(endpoint, STABLE, 1)
    envoy.wait_healthy(endpoint, CANDIDATE, 0 if gone else 1)
    envoy.gateway.publish_routes([compared])

    assert {version_of(http.get(f"/e/{endpoint}/x")) for _ in range(60)} == {STABLE}
    chosen = {"x-signalbox-version": "candidate"}
    assert http.get(f"/e/{endpoint}/x", headers=chosen).status_code == 503, "a tester is not sent elsewhere"

    wait_counted(envoy, 60, "compared", endpoint, version=STABLE, code="200")
    assert counted(envoy, "compared", endpoint, version=CANDIDATE) == 0, "the final answers hide it"
    failed = counted(envoy, "compared_tries", endpoint, version=CANDIDATE, code=code, flags=flags)
    assert failed == counted(envoy, "compared_tries", endpoint, version=CANDIDATE) > 10
    assert counted(envoy, "compared_tries", endpoint, version=STABLE) == 60


# --- evidence by session ---


def sessions(envoy: RunningEnvoy, endpoint: str, wanted: int) -> list[dict[str, Any]]:
    """The lines that Envoy has written of *endpoint*, once there are *wanted*."""
    log = gateway_files(envoy.settings).units

    def written() -> list[dict[str, Any]]:
        parsed = [json.loads(line) for line in log.read_bytes().split(b"\n") if line]
        return [line for line in parsed if line["endpoint"] == endpoint]

    wait_until(lambda: len(written()) >= wanted, timeout_s=10, what=lambda: str(written()))
    return written()


def named(kind: str, session: str) -> dict[str, str]:
    return {"cookie": f"theme=dark; sid={session}; a=b"} if kind == "cookie" else {"sid": session}


@pytest.mark.parametrize("kind", ["header", "cookie"])
def test_requests_that_name_a_session_leave_a_line(
    envoy: RunningEnvoy, start: Start, http: httpx.Client, kind: Any
) -> None:
    stable, candidate = start("a", STABLE).replica, start("b", CANDIDATE).replica
    endpoint, sticky = f"by-{kind}", Sticky(kind, "sid")
    compared = replace(TESTED, step=2)
    envoy.apply(
        split(endpoint, stable, candidate, 0.5, sticky=sticky, comparison=compared),
        split("unstuck", stable, candidate, 0.5, comparison=compared),
        split("uncompared", stable, candidate, 0.5, sticky=sticky),
    )

    for path in (f"/e/{endpoint}/fail", f"/v2/models/{endpoint}/infer"):
        http.get(path, headers=named(kind, "ana"))
    odd = 'bo "the \\" ü'
    http.get(f"/e/{endpoint}/x", headers={name: value.encode() for name, value in named(kind, odd).items()})  # type: ignore[misc]  bytes are allowed too
    version = infer(envoy, endpoint, **named(kind, "cleo"))
    assert infer(envoy, "any", x_endpoint=endpoint, **named(kind, "cleo")) == version
    # these count for nobody
    http.get(f"/e/{endpoint}/x")
    http.get(f"/e/{endpoint}/x", headers=named(kind, ""))
    http.get(f"/e/{endpoint}/x", headers={"x-signalbox-unit": "mine", "x-signalbox-session": "mine"})
    http.get(f"/e/{endpoint}/x", headers={**named(kind, "eve"), "x-signalbox-version": "candidate"})
    http.get(f"/preview/{endpoint}/x", headers=named(kind, "eve"))
    http.get(f"/e/{endpoint}/x", headers=named(kind, "x" * 9000))
    for other in ("unstuck", "uncompared"):
        assert http.get(f"/e/{other}/x", headers={**named(kind, "eve"), ROLLOUT_HEADER: "mine"}).is_success
    http.get(f"/e/{endpoint}/x", headers=named(kind, "last"))

    lines = sessions(envoy, endpoint, 6)
    assert Counter(line["session"] for line in lines) == {"ana": 2, odd: 1, "cleo": 2, "last": 1}
    assert {(line["rollout"], line["step"]) for line in lines} == {("r7", 2)}
    assert sorted(line["code"] for line in lines) == [200] * 5 + [500]
    assert [line["grpc"] for line in lines if line["session"] == "cleo"] == [0, 0]
    assert {line["version"] for line in lines if line["session"] == "cleo"} == {version}
    assert all(0 < line["first_byte_us"] <= line["total_us"] < 10e6 for line in lines)
    assert sessions(envoy, "unstuck", 0) == sessions(envoy, "uncompared", 0) == []
    assert gateway_files(envoy.settings).units.stat().st_mode & 0o777 == 0o600


def test_a_log_that_is_too_long_is_begun_anew_while_envoy_writes(
    envoy: RunningEnvoy, start: Start, http: httpx.Client
) -> None:
    stable, candidate = start("a", STABLE).replica, start("b", CANDIDATE).replica
    sticky, path = Sticky("header", "sid"), gateway_files(envoy.settings).units
    envoy.apply(split("rotated", stable, candidate, 0.5, sticky=sticky, comparison=COMPARED))
    log, units = UnitLog(path, envoy.gateway.reopen_logs, largest_bytes=2000), Units()
    units.count(log.lines())
    log.rotate()
    found = 0

    def take() -> int:
        nonlocal found
        found += int(sum(each.value for each in units.count(log.lines()) if each.key.name == UNIT_REQUESTS))
        log.rotate()
        return found

    for n in range(60):
        http.get("/e/rotated/x", headers={"sid": f"user-{n}"})
        http.get("/e/rotated/x", headers={"sid": f"user-{n}"})
        take()
        if n % 20 == 19:
            wait_until(lambda n=n: take() == n + 1, timeout_s=10, what=lambda: str(found))  # type: ignore[misc]
    assert path.with_name("units.log.1").exists()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_full_disk_costs_lines_and_no_request(
    start: Start, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("full")
    path = gateway_files(settings_for(home)).units
    path.parent.mkdir(parents=True)
    path.symlink_to("/dev/full")
    stable, candidate = start("a", STABLE).replica, start("b", CANDIDATE).replica
    with running_envoy(home) as full, httpx.Client(base_url=full.url, timeout=60) as client:
        sticky = Sticky("header", "sid")
        full.apply(split("digits", stable, candidate, 0.5, sticky=sticky, comparison=COMPARED))
        for n in range(30):  # more than Envoy keeps before it writes
            answer = client.get("/e/digits/x", headers={"sid": f"{n}" + "x" * 7000})
            assert version_of(answer) in (STABLE, CANDIDATE)
        log = UnitLog(path, full.gateway.reopen_logs)
        assert [line for line in log.lines() if line] == []
        log.rotate()
        assert version_of(client.get("/e/digits/x", headers={"sid": "after"})) in (STABLE, CANDIDATE)


# --- copies ---


def test_copies_carry_the_ids_of_their_originals(
    envoy: RunningEnvoy, start: Start, http: httpx.Client, tmp_path: Path
) -> None:
    stable, candidate = start("a", STABLE).replica, start("b", CANDIDATE).replica
    mirrored = split("copied", stable, candidate, 0.0, comparison=COMPARED, mirror=Mirror(CANDIDATE, 1.0))
    envoy.apply(mirrored)
    own = {"x-request-id": str(uuid.uuid4())}

    for headers in (own, {"x-request-id": "order 17"}, {}, {}, {}):
        assert version_of(http.post("/e/copied/seen", headers=headers, content=b"12345")) == STABLE
    wait_until(lambda: len(upstream.seen(tmp_path, "b")) == 5, timeout_s=5, what=lambda: "copies")

    originals, copies = upstream.seen(tmp_path, "a"), upstream.seen(tmp_path, "b")
    ids = [seen["x-request-id"] for seen in originals]
    assert sorted(ids) == sorted(seen["x-request-id"] for seen in copies)
    assert ids[:2] == [own["x-request-id"], "order 17"]
    assert len(set(ids)) == 5
    for seen in (*originals, *copies):
        assert (seen["path"], seen[ROLLOUT_HEADER], seen["content-length"]) == ("/seen", "r7", "5")
        assert seen["host"] == originals[0]["host"]
    assert counted(envoy, "compared_tries", "copied", version=CANDIDATE) == 0, "copies are nobody's tries"


def test_the_share_of_copies_is_as_asked(
    envoy: RunningEnvoy, start: Start, http: httpx.Client, tmp_path: Path
) -> None:
    stable, candidate = start("a", STABLE).replica, start("b", CANDIDATE).replica
    envoy.apply(split("digits", stable, candidate, 0.0, mirror=Mirror(CANDIDATE, 0.25)))

    for _ in range(400):
        http.get("/e/digits/seen")
    envoy.apply(split("digits", stable, candidate, 0.0, mirror=Mirror(CANDIDATE, 1.0)))
    assert http.get("/e/digits/seen-last").is_success
    wait_until(
        lambda: any(seen["path"] == "/seen-last" for seen in upstream.seen(tmp_path, "b")),
        timeout_s=5,
        what=lambda: "the last copy",
    )
    # 400 draws at 0.25: the standard deviation is 8.7, five of them are 43
    assert 57 <= len(upstream.seen(tmp_path, "b")) - 1 <= 143


def test_grpc_calls_are_copied_too(envoy: RunningEnvoy, start: Start) -> None:
    stable, candidate = start("a", STABLE).replica, start("b", CANDIDATE).replica
    envoy.apply(split("digits", stable, candidate, 0.0, mirror=Mirror(CANDIDATE, 1.0)))
    assert infer(envoy, "digits") == STABLE

    stat = f"cluster.digits~{CANDIDATE}~grpc.upstream_rq_2xx"
    admin = envoy.gateway._admin
    wait_until(lambda: admin.stats(stat).get(stat) == "1", timeout_s=5, what=lambda: str(admin.stats(stat)))


@pytest.mark.parametrize("how", ["dead", "slow", "hung"])
def test_a_version_that_only_gets_copies_harms_nobody(
    envoy: RunningEnvoy, start: Start, how: str, tmp_path: Path
) -> None:
    stable = start("a", STABLE).replica
    copied = start("b", CANDIDATE, delay_s=3.0 if how == "slow" else 0.0)
    mirrored = split(
        "digits", stable, copied.replica, 0.0, comparison=COMPARED, mirror=Mirror(CANDIDATE, 1.0)
    )
    envoy.apply(mirrored)
    if how == "dead":
        copied.kill()
    elif how == "hung":
        os.kill(copied.process.pid, signal.SIGSTOP)

    large = bytes(4 * 1024 * 1024)
    with httpx.Client(base_url=envoy.url, timeout=15) as client:
        for _ in range(20):  # before small ones fill what such a version may hold
            assert version_of(client.post("/e/digits/predict", content=large)) == STABLE
    assert infer(envoy, "digits", size=len(large)) == STABLE
    with Load(f"{envoy.url}/e/digits/predict", {}, lambda answer: None) as load:
        load.wait_for_more(300)

    assert load.failures == []
