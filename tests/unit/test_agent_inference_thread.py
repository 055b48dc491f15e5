"""The thread that runs the model: what waits, what shares a batch, and whom it is told."""

import asyncio
import gc
import threading
import time
import weakref
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

from serving_agent.contract.manifest import Limits
from serving_agent.contract.options import Batching, ServingOptions
from serving_agent.duration_model import ENOUGH, DurationModel
from serving_agent.errors import DeadlineError, ModelError, NotReadyError, OverloadedError, QueueFullError
from serving_agent.inference_thread import InferenceThread
from serving_agent.measurements import Measurements
from serving_agent.startup import Started
from serving_agent.work import Answer, Work
from tests.fakes.agents import make_manifest
from tests.fakes.handlers import ROWS, Computing, rows_of, work_for
from tests.fakes.waiting import wait_until

assert torch.__version__, "imported before the first deadline: that takes longer than one"


class Held(Computing):
    """Waits for `go` at every batch and notes the first number of each row it has seen."""

    def __init__(self):
        super().__init__(self.answer)
        self.go = threading.Event()
        self.entered = threading.Event()
        self.seen: list[list[float]] = []

    def answer(self, inputs):
        firsts = inputs["x"][:, 0].tolist()
        self.seen.append(firsts)
        self.entered.set()
        assert self.go.wait(10)
        if -1.0 in firsts:
            raise ValueError("boom")
        if -2.0 in firsts:
            raise SystemExit
        return {"y": inputs["x"]}


@dataclass
class Bench:
    """A started thread, its model, and all that its requests were told."""

    server: Held
    thread: InferenceThread
    measured: Measurements
    ended: asyncio.Future[BaseException]
    told: list[tuple[Work, object]] = field(default_factory=list)

    def submit(self, *firsts, timeout_s=5.0, group="a"):
        work = work_for(
            rows_of(*firsts),
            lambda outcome: self.told.append((work, outcome)),
            group=group,
            timeout_s=timeout_s,
        )
        self.thread.submit(work)
        return work

    async def ask(self, *firsts, timeout_s=5.0, group="a"):
        """The first number of each row of the answer."""
        answered = asyncio.get_running_loop().create_future()
        work = work_for(rows_of(*firsts), answered.set_result, group=group, timeout_s=timeout_s)
        self.thread.submit(work)
        outcome = await answered
        if not isinstance(outcome, Answer):
            raise outcome
        return outcome.outputs[0].array[:, 0].tolist()

    async def entered(self):
        """Return once the model has taken a batch that it has not been seen with."""
        assert await asyncio.to_thread(self.server.entered.wait, 5)
        self.server.entered.clear()

    def outcomes(self, *works):
        return [[outcome for told, outcome in self.told if told is work] for work in works]


async def started(batching=None, max_queue=8):
    server, measured = Held(), Measurements()
    ready, ended = (asyncio.get_running_loop().create_future() for _ in range(2))
    manifest = make_manifest(
        Path("/nowhere"),
        ROWS,
        limits=Limits(max_queue=max_queue),
        options=ServingOptions(batching=batching or Batching(max_rows=4)),
    )
    thread = InferenceThread(
        manifest,
        measured,
        lambda: Started(server, None, None, shares_batches=True),
        ready.set_result,
        ended.set_result,
    )
    thread.start()
    await ready
    return Bench(server, thread, measured, ended)


@pytest.fixture
async def bench():
    bench = await started()
    yield bench
    bench.server.go.set()


async def test_requests_that_come_while_the_model_is_busy_share_its_next_batch(bench):
    running = asyncio.create_task(bench.ask(1))
    await bench.entered()
    waiting = [asyncio.create_task(bench.ask(*firsts)) for firsts in ((2,), (3, 4), (5,), (6,))]
    await asyncio.sleep(0)
    assert bench.thread.depth == 4
    bench.server.go.set()
    assert await asyncio.gather(running, *waiting) == [[1], [2], [3, 4], [5], [6]]
    assert bench.server.seen == [[1], [2, 3, 4, 5], [6]]
    assert bench.thread.depth == 0
    assert (bench.measured.rows.count, bench.measured.inferred_rows, bench.measured.queue.count) == (3, 6, 5)


async def test_requests_of_one_turn_of_the_loop_run_together_at_once(bench):
    bench.server.go.set()
    assert await asyncio.gather(*(bench.ask(number) for number in (1, 2, 3))) == [[1], [2], [3]]
    assert bench.server.seen == [[1, 2, 3]]


async def test_groups_do_not_share_a_batch(bench):
    bench.server.go.set()
    await asyncio.gather(bench.ask(1), bench.ask(2, group="b"), bench.ask(3), bench.ask(4, group=None))
    assert sorted(bench.server.seen) == [[1, 3], [2], [4]]


async def test_a_batch_is_held_back_for_its_delay_unless_it_is_full():
    bench = await started(Batching(max_rows=2, max_delay_ms=1000))
    bench.server.go.set()
    full_s = []
    for _ in range(4):
        began_s = time.perf_counter()
        await asyncio.gather(bench.ask(1), bench.ask(2))
        full_s.append(time.perf_counter() - began_s)
    assert bench.server.seen == [[1, 2]] * 4
    assert min(full_s) < 1.0
    began_s = time.perf_counter()
    await bench.ask(5)
    assert time.perf_counter() - began_s >= 1.0


async def test_a_full_queue_refuses_and_goes_on():
    bench = await started(max_queue=2)
    running = asyncio.create_task(bench.ask(1))
    await bench.entered()
    waiting = [asyncio.create_task(bench.ask(number)) for number in (2, 3)]
    await asyncio.sleep(0)
    with pytest.raises(QueueFullError, match="2 requests are waiting already"):
        bench.submit(4)
    bench.server.go.set()
    assert await asyncio.gather(running, *waiting) == [[1], [2], [3]]
    assert await bench.ask(5) == [5]


async def test_work_of_gone_clients_and_work_past_its_deadline_never_reach_the_model(bench):
    running = asyncio.create_task(bench.ask(1))
    await bench.entered()
    gone = bench.submit(2)
    bench.thread.cancel(gone)
    bench.thread.cancel(gone)
    with pytest.raises(DeadlineError, match=r"no answer within 0.05 s"):
        await bench.ask(3, timeout_s=0.05)
    assert bench.thread.depth == 0
    bench.server.go.set()
    await running
    await bench.ask(4)
    assert bench.server.seen == [[1], [4]]
    assert bench.outcomes(gone) == [[]]
    assert gone.timer.cancelled()


async def test_work_cancelled_while_it_runs_is_told_nothing(bench):
    gone = bench.submit(1)
    await bench.entered()
    bench.thread.cancel(gone)
    bench.server.go.set()
    assert await bench.ask(2) == [2]
    assert bench.outcomes(gone) == [[]]


async def test_a_late_answer_is_dropped_and_the_next_one_is_right(bench):
    late = bench.submit(1, timeout_s=1.0)
    await bench.entered()
    with pytest.raises(DeadlineError):
        await bench.ask(9, timeout_s=1.1)
    bench.server.go.set()
    assert await bench.ask(2) == [2]
    ((outcome,),) = bench.outcomes(late)
    assert isinstance(outcome, DeadlineError)


async def test_work_whose_deadline_has_passed_already_is_told_so(bench):
    bench.server.go.set()
    with pytest.raises(DeadlineError):
        await bench.ask(1, timeout_s=-1.0)


@pytest.mark.parametrize(("number", "name"), [(-1, "ValueError"), (-2, "SystemExit")])
async def test_a_failing_model_fails_its_own_request_only(bench, number, name):
    bench.server.go.set()
    good, bad, also_good = (bench.ask(one) for one in (1, number, 3))
    answers = await asyncio.gather(good, bad, also_good, return_exceptions=True)
    assert (answers[0], answers[2]) == ([1], [3])
    assert isinstance(answers[1], ModelError)
    assert name in str(answers[1])
    assert "boom" not in str(answers[1])
    assert await bench.ask(5) == [5]
    assert bench.measured.queue.count == 3


@pytest.mark.parametrize("number", [1, -1])
async def test_the_thread_is_busy_while_the_model_runs_even_when_its_client_has_gone(bench, number):
    assert bench.thread.busy_s == 0
    with pytest.raises(DeadlineError):
        await bench.ask(number, timeout_s=1.0)
    before = bench.thread.busy_s
    assert before > 0
    assert bench.thread.busy_s > before
    bench.server.go.set()
    await bench.ask(5)
    assert bench.thread.busy_s == 0


async def test_an_ending_agent_tells_all_that_wait_or_run_once(bench):
    running = bench.submit(1)
    await bench.entered()
    waiting = [bench.submit(2), bench.submit(3, group="b")]
    bench.thread.abandon()
    bench.server.go.set()
    assert await bench.ask(4) == [4]
    for outcomes in bench.outcomes(running, *waiting):
        assert [type(outcome) for outcome in outcomes] == [NotReadyError]
    assert bench.server.seen == [[1], [4]]


async def trained(adaptive, row_s=2.0):
    """A held thread that takes its model to need *row_s* seconds a row."""
    bench = await started(Batching(max_rows=2, adaptive=adaptive), max_queue=32)
    for place in range(ENOUGH):
        rows = 1 + place % 2
        bench.thread._durations.observe(rows, row_s * rows)
    return bench


async def test_adaptive_queues_refuse_what_would_miss_its_deadline_and_say_by_how_much():
    bench = await trained(adaptive=True)
    ahead = [bench.submit(number, timeout_s=1000) for number in range(20)]
    with pytest.raises(OverloadedError, match=r"are ahead: .* about 4[012] s.* deadline is in 20 s"):
        bench.submit(1, timeout_s=20)
    admitted = bench.submit(7, timeout_s=1000)
    bench.server.go.set()
    assert await bench.ask(8, timeout_s=1000) == [8]
    assert [type(outcome) for (outcome,) in bench.outcomes(*ahead, admitted)] == [Answer] * 21


async def test_an_adaptive_queue_with_nothing_ahead_tries_whatever_it_expects():
    """Else a fit that has gone wrong would refuse for ever what alone could put it right."""
    bench = await trained(adaptive=True)
    with pytest.raises(DeadlineError):
        await bench.ask(1, timeout_s=1.0)
    assert bench.thread.busy_s > 0, "it runs all the same"
    bench.server.go.set()


async def test_whoever_is_answered_finds_nothing_ahead():
    """Even when the loop hears of the answer long before the thread has turned to what comes next."""
    bench = await trained(adaptive=True)
    bench.server.go.set()
    tell, has_asked_again = bench.thread._tell, threading.Event()

    def tell_and_dawdle(callback):
        tell(callback)
        assert has_asked_again.wait(10)

    bench.thread._tell = tell_and_dawdle
    await bench.ask(1)
    try:
        with pytest.raises(DeadlineError):
            await bench.ask(2, timeout_s=0.1)
    finally:
        has_asked_again.set()


async def test_other_queues_try():
    bench = await trained(adaptive=False)
    bench.submit(1, timeout_s=1000)
    with pytest.raises(DeadlineError):
        await bench.ask(2, timeout_s=0.1)
    bench.server.go.set()


async def test_an_idle_thread_holds_no_requests_data(bench):
    bench.server.go.set()
    arrays = rows_of(1)
    kept = weakref.ref(arrays["x"])
    answered = asyncio.get_running_loop().create_future()
    bench.thread.submit(work_for(arrays, lambda outcome: answered.set_result(None)))
    del arrays
    await answered

    def is_freed():
        gc.collect()
        return kept() is None

    await asyncio.to_thread(wait_until, is_freed, timeout_s=5, what=lambda: "still referred to")


@pytest.mark.parametrize("error", [RuntimeError("no such file"), SystemExit(1), MemoryError()])
async def test_whatever_a_model_raises_while_it_loads_is_its_failure_to_start(error):
    failed = asyncio.get_running_loop().create_future()

    def start():
        raise error

    manifest = make_manifest(Path("/nowhere"), ROWS)
    thread = InferenceThread(
        manifest, Measurements(), start, lambda _: pytest.fail("ready"), failed.set_result
    )
    thread.start()
    assert await failed is error


async def test_empty_batches_are_never_run(bench):
    bench.server.go.set()
    for _ in range(3):
        bench.thread.cancel(bench.submit(1))
    await bench.ask(2)
    assert bench.server.seen == [[2]]
    assert np.isfinite(bench.thread.busy_s)


async def test_an_answer_that_cannot_be_handed_on_keeps_no_other_from_being(bench):
    def fail(outcome):
        raise MemoryError

    running = asyncio.create_task(bench.ask(1))
    await bench.entered()
    bench.thread.submit(work_for(rows_of(2), fail))
    other = asyncio.create_task(bench.ask(3))
    await asyncio.sleep(0)
    bench.server.go.set()
    assert await asyncio.gather(running, other) == [[1], [3]]
    assert bench.server.seen == [[1], [2, 3]]


async def test_a_thread_that_ends_by_a_fault_of_ours_is_told_and_answers_whoever_waits(bench, monkeypatch):
    """Without it the agent would stay ready and answer nobody."""
    running, waiting = bench.submit(1), bench.submit(2, group="b")
    await bench.entered()

    def fail(*_):
        raise MemoryError("ours")

    monkeypatch.setattr(DurationModel, "observe", fail)
    bench.server.go.set()
    async with asyncio.timeout(5):
        assert str(await bench.ended) == "ours"
    for outcomes in bench.outcomes(running, waiting):
        assert [type(outcome) for outcome in outcomes] == [NotReadyError]
