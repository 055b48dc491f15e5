"""The pure parts of the serving benchmark: ratios, goals, order, wire bodies, the report."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from benchmarks.serving import (
    agent_costs,
    environments,
    exchange,
    goals,
    load,
    machine,
    plan,
    ratios,
    records,
    report,
    rounds,
)
from benchmarks.serving import wire as wires
from benchmarks.serving.goals import BATCHED, UNBATCHED, Case, Goal, Side
from benchmarks.serving.peers import catalog
from benchmarks.serving.peers.base import Target, Variant
from benchmarks.serving.plan import Selection
from benchmarks.serving.ratios import Spread
from benchmarks.serving.records import Record, Results
from benchmarks.serving.wire import ReplyError
from benchmarks.serving.workloads import CNN5, LARGE, TINY, WORKLOADS

REST = Target(rest="127.0.0.1:8000", grpc="127.0.0.1:8001")
figure = st.floats(1e-3, 1e6)
series = st.dictionaries(st.integers(1, 9), figure, max_size=9)
rows = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=20)


def record(round_number: int = 1, server: str = "signalbox", **changes: Any) -> Record:
    figures = {"rps": 100.0, "p50_us": 50.0, "p90_us": 60.0, "p99_us": 70.0, "generator_busy": 0.1}
    figures |= {name: changes.pop(name) for name in list(changes) if name in figures}
    settings: dict[str, Any] = {
        "round": round_number,
        "server": server,
        "tuned": False,
        "batching": False,
        "workload": "tiny",
        "wire": "oip_json",
        "concurrency": 16,
        "load_average": 1.0,
        "figures": figures,
    }
    return Record(**(settings | changes))


class TestRatios:
    @given(series, series)
    def test_compares_only_rounds_that_both_sides_have(
        self, ours: ratios.Series, theirs: ratios.Series
    ) -> None:
        found = ratios.ratio(ours, theirs)
        both = ours.keys() & theirs.keys()
        if found is None:
            assert not both
        else:
            assert found.rounds == len(both)
            assert found.low <= found.median <= found.high
            assert found.low == min(ours[n] / theirs[n] for n in both)

    def test_takes_the_ratio_within_a_round_not_of_the_medians(self) -> None:
        """A machine that halves everybody's speed for one round changes no ratio."""
        assert ratios.ratio({1: 200.0, 2: 100.0}, {1: 100.0, 2: 50.0}) == Spread(2.0, 2.0, 2.0, 2)

    def test_difference_keeps_its_sign(self) -> None:
        assert ratios.difference({1: 5.0, 2: 9.0}, {1: 7.0, 2: 4.0}) == Spread(1.5, -2.0, 5.0, 2)

    def test_the_best_candidate_is_chosen_anew_in_each_round(self) -> None:
        candidates = [{1: 10.0, 2: 1.0}, {1: 5.0, 2: 8.0, 3: 2.0}]
        assert ratios.best(candidates, max) == {1: 10.0, 2: 8.0, 3: 2.0}
        assert ratios.best(candidates, min) == {1: 5.0, 2: 1.0, 3: 2.0}

    @pytest.mark.parametrize(
        ("low", "high", "rounds_", "claim"),
        [
            (1.1, 2.0, 7, True),
            (0.5, 0.9, 7, True),
            (0.9, 2.0, 7, False),
            (1.0, 2.0, 7, False),
            (1.1, 2.0, 6, False),
        ],
    )
    def test_claims_only_what_every_round_says(
        self, low: float, high: float, rounds_: int, claim: bool
    ) -> None:
        assert ratios.is_claim(Spread(1.5, low, high, rounds_)) is claim

    @pytest.mark.parametrize(
        ("found", "bound", "at_least", "verdict"),
        [
            (None, 1.0, True, "not measured"),
            (Spread(9, 9, 9, 6), 1.0, True, "too few rounds"),
            (Spread(2, 1.5, 3, 7), 1.5, True, "met"),
            (Spread(2, 1.4, 3, 7), 1.5, True, "open"),
            (Spread(1, 0.5, 1.4, 7), 1.5, True, "not met"),
            (Spread(1, 0.5, 1.2, 7), 1.2, False, "met"),
            (Spread(1, 0.5, 1.3, 7), 1.2, False, "open"),
            (Spread(2, 1.3, 3, 7), 1.2, False, "not met"),
        ],
    )
    def test_verdicts(self, found: Any, bound: float, at_least: bool, verdict: str) -> None:
        assert ratios.verdict(found, bound, at_least=at_least) == verdict


class TestGoals:
    GOAL = Goal("fast", Case("tiny", "json", 16), UNBATCHED, "rps", frozenset({"litserve"}), 2.0, True)

    def seven(self, **theirs: Any) -> list[Record]:
        return [
            each
            for number in range(1, 8)
            for each in (
                record(number, rps=300.0),
                record(number, "litserve", wire="own_json", rps=100.0),
                record(number, "litserve", wire="own_json", tuned=True, **({"rps": 120.0} | theirs)),
            )
        ]

    def test_compares_with_the_best_variant_of_the_peers(self) -> None:
        outcome = goals.judge(self.GOAL, self.seven())
        assert outcome.found == Spread(2.5, 2.5, 2.5, 7)
        assert outcome.verdict == "met"

    def test_leaves_void_measurements_out(self) -> None:
        outcome = goals.judge(self.GOAL, self.seven(void="an error", figures={}))
        assert outcome.found == Spread(3.0, 3.0, 3.0, 7)

    def test_is_open_where_the_generator_held_the_other_side_back(self) -> None:
        assert goals.judge(self.GOAL, self.seven(generator_busy=0.95)).verdict == "open"
        assert goals.judge(self.GOAL, self.seven(rps=200.0, generator_busy=0.95)).verdict == "not met"
        elsewhere = [record(n, "mlserver", generator_busy=0.95) for n in range(1, 8)]
        assert goals.judge(self.GOAL, self.seven() + elsewhere).verdict == "met"

    def test_is_met_where_the_generator_held_only_ours_back(self) -> None:
        measured = [
            replace(each, figures={**each.figures, "generator_busy": 0.95})
            if each.server == plan.OURS
            else each
            for each in self.seven()
        ]
        assert goals.judge(self.GOAL, measured).verdict == "met"

    @pytest.mark.parametrize(
        "other", [{"workload": "large"}, {"wire": "grpc"}, {"concurrency": 1}, {"server": "mlserver"}]
    )
    def test_leaves_other_cases_and_servers_out(self, other: dict[str, Any]) -> None:
        settings: dict[str, Any] = {"server": "litserve", "rps": 1e6} | other
        extra = [record(number, **settings) for number in range(1, 8)]
        assert goals.judge(self.GOAL, self.seven() + extra).found == Spread(2.5, 2.5, 2.5, 7)

    def test_compares_the_gateway_with_the_same_variant_of_ours(self) -> None:
        (goal, *_) = [each for each in goals.all_goals() if each.as_difference]
        measured = [
            each
            for number in range(1, 8)
            for each in (
                record(number, "gateway", concurrency=1, p50_us=300.0),
                record(number, concurrency=1, p50_us=200.0),
                record(number, concurrency=1, p50_us=10.0, batching=True),
            )
        ]
        assert goals.judge(goal, measured).found == Spread(100.0, 100.0, 100.0, 7)

    def test_every_goal_is_about_something_that_is_measured(self) -> None:
        sessions = plan.sessions(catalog.PEERS, WORKLOADS.values(), Selection())
        measured = {
            (
                Side(each.server, each.variant),
                Case(each.workload.name, plan.KINDS[cell.wire], cell.concurrency),
            )
            for each in sessions
            for cell in each.cells
        }
        servers = {side.server for side, _ in measured} | {plan.TORCH}
        for goal in goals.all_goals():
            assert (goal.ours, goal.case) in measured
            assert goal.against <= servers


class TestEnvironments:
    def test_is_out_of_date_when_what_the_tuned_variant_adds_changes(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(environments, "REQUIREMENTS", tmp_path)
        monkeypatch.setattr(environments, "PEERS", tmp_path)
        (tmp_path / "a.txt").write_text("torch")
        (tmp_path / "a" / "bin").mkdir(parents=True)
        monkeypatch.setattr(environments, "_run", lambda _: "")
        environments.build("a", lambda _: None)
        assert environments.is_built("a")
        (tmp_path / "a-tuned.txt").write_text("uvloop==1")
        assert not environments.is_built("a")
        environments.build("a", lambda _: None)
        assert environments.is_built("a")
        (tmp_path / "a-tuned.txt").write_text("uvloop==2")
        assert not environments.is_built("a")

    def test_lists_what_only_the_tuned_variant_has(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(environments, "PEERS", tmp_path)
        (tmp_path / "a" / "tuned").mkdir(parents=True)

        def pip(command: list[str]) -> str:
            tuned = str(tmp_path / "a" / "tuned") in command
            package = {"name": "uvloop", "version": "2" if tuned else "1"}
            return json.dumps([package, {"name": "wheel", "version": "3"}])

        monkeypatch.setattr(environments, "_run", pip)
        assert machine.peer_versions("a") == {"uvloop": "1", "uvloop (tuned)": "2"}


class TestPlan:
    ALL = plan.sessions(catalog.PEERS, WORKLOADS.values(), Selection())

    @given(st.integers(), st.integers(1, 100))
    def test_every_round_measures_everything_once(self, seed: int, number: int) -> None:
        mixed = plan.shuffled(self.ALL, seed, number)
        assert sorted(map(self.key, mixed)) == sorted(map(self.key, self.ALL))
        assert mixed == plan.shuffled(self.ALL, seed, number)

    def key(self, session: plan.Session) -> str:
        ordered = sorted(session.cells, key=lambda cell: (cell.wire, cell.concurrency))
        return f"{session.server} {session.variant} {session.workload.name} {ordered}"

    def test_rounds_differ_in_order(self) -> None:
        orders = {tuple(map(self.key, plan.shuffled(self.ALL, 1, number))) for number in range(8)}
        assert len(orders) == 8

    def test_selects(self) -> None:
        chosen = Selection(frozenset({"kserve"}), frozenset({"large"}), frozenset({"binary"}), frozenset({4}))
        sessions = plan.sessions(catalog.PEERS, WORKLOADS.values(), chosen)
        assert {session.server for session in sessions} == {"kserve"}
        assert {session.cells for session in sessions} == {(plan.Cell("oip_binary", 4),)}

    def test_peers_batch_only_where_batching_is_measured(self) -> None:
        batching = {(each.server, each.workload.name) for each in self.ALL if each.variant.batching}
        assert {workload for server, workload in batching if server != plan.OURS} == {"cnn5"}
        assert (plan.OURS, "tiny") in batching

    def test_tells_how_long_a_round_takes(self) -> None:
        session = plan.Session("kserve", Variant(), TINY, (plan.Cell("grpc", 1), plan.Cell("grpc", 4)))
        assert plan.duration_s([session], 5.0, 1.0) == plan.START_S + 12.0


class TestWire:
    @given(rows)
    def test_json_carries_the_very_values(self, values: list[float]) -> None:
        x = np.array([values], np.float32)
        body = wires.rest_body("oip_json", x)
        tensor = json.loads(body.content)["inputs"][0]
        assert tensor["shape"] == [1, len(values)]
        assert np.array_equal(np.array(tensor["data"], np.float32), x[0])

    @given(rows)
    def test_binary_carries_the_very_bytes_behind_the_json(self, values: list[float]) -> None:
        x = np.array([values], np.float32)
        body = wires.rest_body("oip_binary", x)
        length = int(body.headers[wires.JSON_LENGTH])
        head = json.loads(body.content[:length])
        assert head["inputs"][0]["parameters"]["binary_data_size"] == len(body.content) - length
        assert np.array_equal(np.frombuffer(body.content[length:], "<f4"), x[0])

    def test_a_rest_request_says_its_length(self) -> None:
        body = wires.rest_body("own_json", np.ones((1, 2), np.float32))
        head, _, content = wires.http_request(REST, body).partition(b"\r\n\r\n")
        assert content == b'{"x":[[1.0,1.0]]}'
        assert head.startswith(b"POST /v2/models/bench/infer HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n")
        assert head.endswith(b"Content-Length: 17")

    def test_grpc_is_no_rest_form(self) -> None:
        with pytest.raises(ValueError, match="grpc"):
            wires.rest_body("grpc", np.ones((1, 2), np.float32))

    @given(rows)
    def test_a_grpc_message_is_prefixed_and_raw(self, values: list[float]) -> None:
        x = np.array([values], np.float32)
        message = wires.grpc_message(x)
        assert message[0] == 0
        assert struct.unpack(">I", message[1:5])[0] == len(message) - 5
        request = service_pb2.ModelInferRequest.FromString(message[5:])
        assert list(request.inputs[0].shape) == [1, len(values)]
        assert np.array_equal(np.frombuffer(request.raw_input_contents[0], "<f4"), x[0])

    def test_the_header_block_is_plain_hpack(self) -> None:
        block = wires.grpc_headers("host:1")
        assert block.startswith(b"\x83\x86\x04" + bytes([len(wires.GRPC_PATH)]))
        assert block.endswith(b"\x00\x02te\x08trailers")
        assert b"\x01\x06host:1" in block

    def test_a_header_too_long_for_one_length_byte_is_refused(self) -> None:
        with pytest.raises(ValueError, match="length"):
            wires.grpc_headers("h" * 127)

    @pytest.mark.parametrize("reply", [b'{"name":"y","data": [1.5, [2]],"z":[0]}', b'{"data":[1.5, [2]]}'])
    def test_finds_the_array_after_its_key(self, reply: bytes) -> None:
        assert wires.json_array('"data"', reply) == b"[1.5, [2]]"

    @pytest.mark.parametrize("reply", [b"{}", b'{"data": 3}', b'{"error": "no"}'])
    def test_a_reply_without_the_array_is_an_error(self, reply: bytes) -> None:
        with pytest.raises(ReplyError):
            wires.json_array('"data"', reply)

    @pytest.mark.parametrize("array", [b"[1, null]", b'["a"]', b"[[1], [1, 2]]", b"[1"])
    def test_an_array_of_anything_but_numbers_is_an_error(self, array: bytes) -> None:
        with pytest.raises(ReplyError):
            exchange.check(wires.floats_of_json(array), np.ones(2, np.float32), 1e-3)

    def test_raw_tensors_are_the_end_of_the_reply(self) -> None:
        raw = np.array([1.0, 2.0], "<f4").tobytes()
        assert wires.tensor_bytes("grpc", REST, b"head" + raw, 8) == raw
        with pytest.raises(ReplyError):
            wires.tensor_bytes("grpc", REST, raw[:4], 8)
        with pytest.raises(ReplyError):
            wires.floats_of_raw(raw[:5])


class TestChecking:
    def test_tolerates_rounding_in_proportion_to_the_largest_value(self) -> None:
        wanted = np.array([1000.0, 0.001], np.float32)
        exchange.check(np.array([1000.5, 0.4], np.float32), wanted, 1e-3)

    @pytest.mark.parametrize("found", [[1000.0, 2.0], [999.0, 0.0], [float("nan"), 0.0], [1000.0], [0.0] * 3])
    def test_refuses_wrong_values_and_sizes(self, found: Any) -> None:
        with pytest.raises(ReplyError):
            exchange.check(np.array(found, np.float32), np.array([1000.0, 0.0], np.float32), 1e-4)

    REPORT: ClassVar = {
        **{"seconds": 2.0, "answers": 100, "errors": 0, "different": 3, "unlisted": 0, "first_error": ""},
        **{"p50_us": 1.0, "p90_us": 2.0, "p99_us": 3.0, "max_us": 4.0, "generator_busy": 0.5},
    }

    def test_reads_the_generators_figures(self) -> None:
        figures = load.figures(self.REPORT)
        assert figures.rps == 50.0
        assert figures.different == 3

    @pytest.mark.parametrize("wrong", [{"errors": 1}, {"unlisted": 1}, {"answers": 0}])
    def test_one_error_makes_a_measurement_void(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ReplyError):
            load.figures(self.REPORT | wrong)

    def test_a_void_reason_is_one_short_line_without_our_paths(self) -> None:
        text = rounds.reason(ValueError(f"exited with 1:\n{rounds.MODELS}/x\n" + "y" * 900))
        assert text.startswith("exited with 1: … yyy")
        assert len(text) == rounds.REASON_LENGTH
        assert rounds.reason(OSError(f"no {rounds.MODELS}")) == "no ./.peers/models"
        assert rounds.reason(ValueError()) == "ValueError"

    def test_the_torch_loop_counts_rows(self) -> None:
        loop = {"batch": 16, "calls": 10, "seconds": 2.0, "p50_us": 1.0, "p90_us": 2.0, "p99_us": 3.0}
        assert rounds.loop_figures(loop)["rps"] == 80.0

    def test_requests_are_the_same_on_every_call_and_differ_from_each_other(self) -> None:
        for workload in (TINY, LARGE, CNN5):
            requests = workload.requests()
            assert requests.shape == (workload.distinct, *workload.row)
            assert np.array_equal(requests, workload.requests())
            assert len({row.tobytes() for row in requests}) == workload.distinct


class TestAgentCosts:
    def test_reads_sizes_in_mib(self) -> None:
        text = "00400000-7fff [rollup]\nRss:  2048 kB\nPss: 1024 kB\nPss_Dirty: 9 kB\nAnonymous: 512 kB\n"
        assert agent_costs.rollup(text) == {"rss_mib": 2.0, "pss_mib": 1.0, "anonymous_mib": 0.5}

    def test_subtracts_what_torch_alone_takes(self) -> None:
        agent = {"rss_mib": 260.0, "pss_mib": 200.0, "anonymous_mib": 150.0, "ready_s": 2.0}
        alone = {"rss_mib": 220.0, "pss_mib": 150.0, "anonymous_mib": 140.0, "import_torch_s": 1.0}
        above = agent_costs.above(agent, alone)
        assert above == {"rss_mib": 40.0, "pss_mib": 50.0, "anonymous_mib": 10.0}


def results(*measured: Record, **changes: Any) -> Results:
    settings = {"rounds": 7, "seed": 1, "seconds": 5.0, "warm_up_s": 1.0, "server_core": 0, "load_core": 1}
    machine = {"cpu": "a CPU", "cores": 2, "memory_gib": 24.0, "kernel": "Linux 6", "python": "3.11"}
    base = Results("2024-01-01 00:00 UTC", settings, machine, {"litserve": {"torch": "2"}}, list(measured))
    return replace(base, **changes)


class TestReport:
    def test_survives_writing_and_reading(self, tmp_path: Path) -> None:
        written = results(record(), record(2, void="why", figures={}))
        written.write(tmp_path / "new" / "serving.json")
        assert records.read(tmp_path / "new" / "serving.json") == written
        assert [path.name for path in (tmp_path / "new").iterdir()] == ["serving.json"]

    def test_an_empty_run_has_a_report(self, tmp_path: Path) -> None:
        results().write(tmp_path / "empty.json")
        assert "not measured" in report.markdown(records.read(tmp_path / "empty.json"))

    def test_shows_ratios_and_marks_only_claims(self) -> None:
        measured = [
            each
            for number in range(1, 8)
            for each in (
                record(number, rps=300.0),
                record(number, "litserve", wire="own_json", rps=100.0),
                record(number, "bentoml", wire="own_json", rps=200.0 + 50.0 * number),
            )
        ]
        text = report.markdown(results(*measured))
        (slower,) = [line for line in text.splitlines() if line.startswith("| LitServe")]
        (even,) = [line for line in text.splitlines() if line.startswith("| BentoML")]
        assert slower.endswith("| **3× [3 … 3]** |")
        assert even.endswith("| 0.75× [0.545 … 1.2] |")

    def test_keeps_batched_and_unbatched_apart(self) -> None:
        measured = [record(rps=100.0), record(batching=True, rps=400.0), record(server="litserve", rps=50.0)]
        text = report.markdown(results(*measured))
        unbatched, batched = text.split("c = 16, batching")
        assert "LitServe, default |" in unbatched
        assert "LitServe, default |" not in batched.split("###")[0]
        assert str(BATCHED.variant) in batched

    def test_lists_what_is_void_and_why(self) -> None:
        text = report.markdown(results(record(void="1 errors | 503", figures={})))
        assert "| 1 | **Signalbox agent**, default | tiny, oip_json, c = 16 | 1 errors \\| 503 |" in text

    def test_marks_figures_that_the_generator_may_have_limited(self) -> None:
        assert "default † |" in report.markdown(results(record(generator_busy=0.95)))
        assert "default † |" not in report.markdown(results(record(generator_busy=0.5)))

    def test_shows_what_an_idle_agent_costs(self) -> None:
        memory = {"rss_mib": 250.0, "pss_mib": 180.0, "anonymous_mib": 150.0}
        costs = {
            "starts": 5,
            "import_torch": memory | {"import_torch_s": 1.25},
            "agent": memory | {"ready_s": 2.5, "load_s": 0.25},
            "above_torch": {"rss_mib": 30.0, "pss_mib": 20.0, "anonymous_mib": 10.0},
        }
        text = report.markdown(results(record(), agent=costs))
        assert "| RSS | 250 | 250 | 30 |" in text
        assert "| ready | 2.5 |" in text
        assert "| (import torch alone) | 1.25 |" in text

    @given(figure)
    def test_numbers_have_three_digits(self, value: float) -> None:
        shown = float(report.number(value).replace(",", ""))
        assert shown == pytest.approx(value, rel=0.006)

    def test_tables_are_markdown(self) -> None:
        assert report.table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | ---: |\n| 1 | 2 |"
