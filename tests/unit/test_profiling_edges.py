"""Profiles at their edges: a profiler that fails, traces too large to read, who asked gone, refusals."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from torch._C._autograd import DeviceType

from serving_agent.batch import Inputs
from serving_agent.contract.profile import LiveOrder, LiveProfile, ProfileOrder
from serving_agent.contract.signature import Signature
from serving_agent.dataplane import DataPlane
from serving_agent.errors import InvalidRequestError, OverloadedError, QueueFullError, TooManyError
from serving_agent.http_message import Response
from serving_agent.measurements import StageTimes
from serving_agent.messages import InferRequest
from serving_agent.profiling import functions, live, memory, operators, session, speedscope
from serving_agent.profiling.failures import TooLargeTraceError
from serving_agent.profiling.intervals import Node
from serving_agent.profiling.live import LiveProfiler
from serving_agent.profiling.session import Session
from serving_agent.profiling.subject import Asked
from serving_agent.work import Answer


class Still:
    """A version that answers at once."""

    device = "cpu"
    is_batchable = True
    held_before = 0
    load_s = 0.0

    def __init__(self, order: ProfileOrder) -> None:
        del order

    def inputs(self, rows: int) -> Inputs:
        del rows
        return {}

    def ask(self, inputs: Inputs) -> Asked:
        del inputs
        return Asked(StageTimes(), 0.0, 1e-6)


def test_one_profiler_that_fails_costs_its_own_part_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*given: object) -> Any:
        raise RuntimeError("no room for events\nand more")

    monkeypatch.setattr(session, "Subject", Still)
    monkeypatch.setattr(operators, "take", fails)
    monkeypatch.setattr(session, "yields_to_others", lambda: True)
    order = ProfileOrder(
        folder="m/1", format="f", handler="h", signature=Signature((), ()), out=str(tmp_path),
        requests=2, seconds=0.01, take=("operators", "functions"),
    )  # fmt: skip
    report = Session(order, lambda stage, done: None).run()
    assert report.notes == (session.LOW_PRIORITY, "operators: RuntimeError: no room for events")
    assert [each.name for each in report.overheads] == ["functions"]
    assert (tmp_path / "report.json").is_file()


# -- traces too large -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "request_s", "traced"),
    [(10, 0.001, 20), (100_000, 0.001, 3), (10**9, 0.001, 1), (10, 60.0, 1), (0, 0.0, 20)],
)
def test_one_request_is_traced_however_large_it_is(events: int, request_s: float, traced: int) -> None:
    assert operators.affordable(20, events, request_s, 10.0) == traced


@pytest.mark.parametrize("stacks_alone", [True, False])
def test_what_is_too_much_to_read_is_traced_without_stacks_or_not_at_all(
    *, stacks_alone: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[bool] = []

    def traced(*given: object, with_stack: bool) -> Any:
        tried.append(with_stack)
        return with_stack, (Asked(StageTimes(), 0.0, 1.0),), [1.0]

    def counted(profiler: bool, paths: object) -> int:
        return operators.MOST_READ + 1 if profiler or not stacks_alone else 5

    monkeypatch.setattr(operators, "_trace", traced)
    monkeypatch.setattr(operators, "_count", counted)
    monkeypatch.setattr(operators, "_exported", lambda *_: b"")
    monkeypatch.setattr(operators, "_read", lambda *given: given[-1])
    take = partial(operators.take, SimpleNamespace(device="cpu"), None, 1, 10.0, tmp_path)  # type: ignore[arg-type]
    if stacks_alone:
        (note,) = take()  # type: ignore[misc]
        assert "more than 2,000,000 events with stacks" in note
    else:
        with pytest.raises(TooLargeTraceError, match="too many to read"):
            take()
    assert tried == [True, False]


def test_the_trace_passes_through_the_reports_own_folder(tmp_path: Path) -> None:
    def export(path: str) -> None:
        assert Path(path).parent == tmp_path
        Path(path).write_bytes(b"{}")

    assert operators._exported(SimpleNamespace(export_chrome_trace=export), tmp_path) == b"{}"
    assert list(tmp_path.iterdir()) == []


def test_a_huge_request_keeps_speedscopes_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speedscope, "MOST_EVENTS", 10)
    inside = [Node(f"f{at}", "function", at, at + 1) for at in range(100)]
    file = speedscope.File("m")
    file.add_tree("Operators", [Node("request", "stage", 0, 100, inside)] * 2)
    content = file.content()
    assert content is not None
    events = content["profiles"][0]["events"]
    assert 10 <= len(events) <= 12
    assert [each["type"] for each in events].count("O") == len(events) // 2


def row(key: str, device: DeviceType = DeviceType.CPU, own: float = 1.0, on_device: float = 0.0) -> Any:
    return SimpleNamespace(
        key=key, input_shapes=[[2, 8], []], count=1, self_cpu_time_total=own, cpu_time_total=own,
        self_device_time_total=on_device, device_time_total=on_device, self_cpu_memory_usage=0,
        self_device_memory_usage=0, device_type=device,
    )  # fmt: skip


def test_time_of_kernels_is_counted_with_their_operators_alone() -> None:
    found = operators._operators([
        row("aten::addmm", on_device=50.0),
        row("sm90_gemm_f32", DeviceType.CUDA, own=0.0, on_device=50.0),
        row("cudaLaunchKernel", own=9.0, on_device=50.0),
        row("cuLaunchKernelEx"),
        row("signalbox: predict"),
        row("current_work"),
    ])  # fmt: skip
    assert [each.name for each in found] == ["aten::addmm", "current_work"]
    assert found[0].device_self_s == pytest.approx(50e-6)


def test_functions_that_only_call_others_are_kept_among_many() -> None:
    many = {("a.py", at, f"busy{at}"): (1, 1, 1.0 + at, 1.0 + at, {}) for at in range(400)}
    outer = {("b.py", at, f"outer{at}"): (1, 1, 0.0, 1e6 - at, {}) for at in range(160)}
    found = [each.name for each in functions.functions({**many, **outer})]
    assert len(found) == functions.MOST_FUNCTIONS
    assert {f"outer{at}" for at in range(150)} <= set(found)
    assert found[0] == "busy399"


def test_a_processor_has_no_bound_of_a_gpu() -> None:
    memory.limit("cpu", 1)
    memory.limit("cuda:0", None)


# -- live agents ----------------------------------------------------------------------------------------


class Asks:
    """An exchange that asks for a profile."""

    error = None
    method = b"POST"
    body = msgspec.json.encode(LiveOrder(requests=1, seconds=60.0))

    def __init__(self) -> None:
        self.on_gone: Any = None
        self.answered = asyncio.Event()
        self.outcome: Any = None

    def respond(self, exchange: Any, outcome: Response | Exception) -> None:
        assert exchange is self
        self.outcome = outcome
        self.answered.set()


def live_profiler() -> LiveProfiler:
    counted: Any = SimpleNamespace(inferred_rows=0, rows=SimpleNamespace(count=0))
    health: Any = SimpleNamespace(check_answering=lambda: None)
    return LiveProfiler(health, counted)


def start(profiler: LiveProfiler) -> Asks:
    asks = Asks()
    profiler.answer(asks, asks.respond)  # type: ignore[arg-type]
    return asks


def test_a_profile_that_cannot_be_put_together_is_answered_as_a_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*given: object) -> bytes:
        raise MemoryError

    monkeypatch.setattr(live, "_content", fails)

    async def scene() -> None:
        profiler = live_profiler()
        asks = start(profiler)
        profiler.end("seconds")
        await asks.answered.wait()
        assert isinstance(asks.outcome, MemoryError)

    asyncio.run(scene())


def test_who_leaves_late_ends_nobody_elses_profile() -> None:
    async def scene() -> None:
        profiler = live_profiler()
        first = start(profiler)
        profiler.end("seconds")
        await first.answered.wait()
        await asyncio.gather(*profiler._ending)
        second = start(profiler)
        first.on_gone()
        assert profiler.is_on
        second.on_gone()
        assert not profiler.is_on

    asyncio.run(scene())


def test_writing_an_answer_that_was_not_seen_is_left_out() -> None:
    async def scene() -> None:
        profiler = live_profiler()
        asks = start(profiler)
        now_s = time.perf_counter()
        profiler.took(now_s - 1.0, now_s, None, Answer((), 0.25, StageTimes(predict_s=0.5)))
        await asks.answered.wait()
        found = msgspec.json.decode(b"".join(asks.outcome.body), type=LiveProfile)
        assert found.unwritten == 1
        stages = {stage.name: stage.p50_s for stage in found.stages}
        assert "encode" not in stages
        assert stages["other"] == pytest.approx(0.25)

    asyncio.run(scene())


class Refuses(DataPlane):
    """Refuses all with *error*, as far as a request gets."""

    def __init__(self, error: Exception) -> None:
        self.failed: list[Exception] = []
        self.profiler: Any = SimpleNamespace(failed=lambda: self.failed.append(error))
        self.health: Any = SimpleNamespace(check_concurrency=self._accept)
        self.error = error

    def _accept(self, *given: object) -> Any:
        raise self.error


@pytest.mark.parametrize(
    ("error", "counted"), [(QueueFullError("x"), 1), (OverloadedError("x"), 1), (InvalidRequestError("x"), 0)]
)
def test_refusals_for_load_count_as_failed(error: Exception, counted: int) -> None:
    plane = Refuses(error)
    with pytest.raises(type(error)):
        plane.submit(InferRequest("m", "", ()), lambda outcome: None)
    assert len(plane.failed) == counted


def test_requests_beyond_the_limit_count_as_failed() -> None:
    plane = Refuses(TooManyError("x"))
    with pytest.raises(TooManyError):
        plane.check_concurrency()
    assert len(plane.failed) == 1
