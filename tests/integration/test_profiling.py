"""Profiles for real: of a version with a slow layer, kept, compared, exported, refused, expired."""

from __future__ import annotations

import csv
import gzip
import io
import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import psutil
import pytest
import torch

from control_plane.domain.job import JobState
from control_plane.domain.profile import ProfileView, Wish
from control_plane.errors import ConflictError, GoneError, InvalidInputError, NotFoundError
from control_plane.jobs import profiling as profiling_jobs
from control_plane.jobs.kinds import profile as kind
from control_plane.services import housekeeping, jobs, profile_exports, profile_folders, profiling
from control_plane.services.context import Context
from control_plane.ui.components import speedscope_client
from serving_agent.contract.profile import KeyFigures, Report
from serving_agent.measurements import StageTimes
from serving_agent.profiling import intervals, operators, session
from serving_agent.profiling.subject import Asked
from tests.fakes import lab, profiles
from tests.fakes.registry import open_home

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def ctx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    """slow@1 has a layer that is slow on purpose."""
    folder = tmp_path_factory.mktemp("profiling")
    context = open_home(folder / "home", architectures=(profiles.NETWORK,))
    profiles.register(context, folder / "slow")
    yield context
    context.engine.dispose()


@pytest.fixture(scope="module")
def taken(ctx: Context) -> ProfileView:
    """All that there is, of slow@1."""
    queued = profiling.start(ctx, "slow@1", profiles.QUICK, name="first", actor="ana")
    assert (queued.state, queued.summary, queued.files) == ("queued", None, ())
    with pytest.raises(ConflictError, match="profile is queued"):
        profiling.report(ctx, queued.id)
    with pytest.raises(ConflictError, match="being taken"):
        profiling.delete(ctx, queued.id, actor="ana")
    done = lab.perform(ctx, queued.job_id)
    assert (done.state, done.reason) == (JobState.SUCCEEDED, None)
    assert done.lane == "lab"
    return profiling.get(ctx, queued.id)


@pytest.fixture(scope="module")
def report(ctx: Context, taken: ProfileView) -> Report:
    return profiling.report(ctx, taken.id)


def test_the_layer_that_is_slow_on_purpose_is_named(ctx: Context, taken: ProfileView, report: Report) -> None:
    assert taken.summary is not None
    assert (taken.summary.top, report.layers[0].path) == (profiles.SLOW, profiles.SLOW)
    assert {layer.path for layer in report.layers} >= {"encoder.0", "encoder.1.lin", "head", "(network)"}
    summary = profiling.detail(ctx, taken.id).summary
    assert summary is not None
    assert profiles.SLOW in {cost.name for cost in summary.costs}
    assert 1 <= len(summary.costs) <= 3


def test_self_times_add_up_to_the_wall_time(report: Report) -> None:
    assert report.traced_wall_s is not None
    assert report.traced_self_s == pytest.approx(report.traced_wall_s, rel=0.05)
    operators = next(flame for flame in report.flames if flame.name == "operators")
    assert sum(node.self_s for node in operators.nodes) == pytest.approx(operators.total_s)
    stages = {node.name for node in operators.nodes if node.kind == "stage"}
    assert stages == {"request", "preprocess", "predict", "postprocess", "encode"}
    layers = {node.name for node in operators.nodes if node.kind == "layer"}
    assert f"Repeats {profiles.SLOW}" in layers


def test_every_view_is_there(report: Report) -> None:
    assert {"aten::tanh", "aten::sigmoid", "aten::addmm"} <= {each.name for each in report.operators}
    tanh = next(each for each in report.operators if each.name == "aten::tanh")
    assert (tanh.shapes, tanh.calls) == ("[2, 8]", 40 * report.traced_requests)
    assert not any("at 0x" in each.name or "(" in each.name for each in report.operators)
    forward = next(each for each in report.functions if each.place.startswith("tests/fakes/networks.py"))
    assert (forward.name, forward.calls) == ("forward", report.function_requests)
    assert [stage.name for stage in report.stages] == [
        "preprocess", "predict", "postprocess", "encode", "other",
    ]  # fmt: skip
    assert [point.rows for point in report.sweep] == [1, 2, 4]
    assert all(point.p50_s and point.rows_per_s and not point.problem for point in report.sweep)
    assert report.knee in (1, 2, 4)
    assert report.key.knee_rows == report.knee
    assert (report.key.batch, report.key.device, report.key.threads) == (2, "cpu", 1)
    assert len(report.memory) > 10
    assert [each.name for each in report.overheads] == ["operators", "functions", "samples"]
    assert all(each.plain_s > 0 and each.profiled_s > 0 for each in report.overheads)
    assert report.libraries["torch"]
    assert session.LOW_PRIORITY in report.notes


def test_speedscopes_file_fits_its_schema(ctx: Context, taken: ProfileView) -> None:
    content = json.loads(profiling.file(ctx, taken.id, "speedscope.json").read_bytes())
    schema = json.loads((speedscope_client.FOLDER / "file-format-schema.json").read_bytes())
    jsonschema.validate(content, schema)
    assert content["profiles"][0]["type"] == "evented"
    assert f"Repeats {profiles.SLOW}" in {frame["name"] for frame in content["shared"]["frames"]}


def test_the_trace_is_one_that_perfetto_reads(ctx: Context, taken: ProfileView) -> None:
    trace = json.loads(gzip.decompress(profiling.file(ctx, taken.id, "trace.json.gz").read_bytes()))
    phases = {event["ph"] for event in trace["traceEvents"]}
    assert "X" in phases
    assert any(event.get("cat") == "cpu_op" for event in trace["traceEvents"])


def test_tables_are_exported_as_csv(ctx: Context, taken: ProfileView, report: Report) -> None:
    for table, (columns, rows) in profile_exports.TABLES.items():
        read = list(csv.reader(io.StringIO(profiling.csv(ctx, taken.id, table))))
        assert read[0] == list(columns)
        assert len(read) == 1 + len(tuple(rows(report)))
    with pytest.raises(InvalidInputError, match="operators, functions, layers, sweep"):
        profiling.csv(ctx, taken.id, "secrets")


def test_the_page_stands_alone(ctx: Context, taken: ProfileView) -> None:
    page = profiling.html(ctx, taken.id)
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert "src=" not in page.replace("default-src", "")
    assert profiles.SLOW in page
    for part in ("Flame: operators", "Memory over time", "Rows a second (solid)"):
        assert part in page


def test_a_profile_compared_with_itself_differs_in_nothing(ctx: Context, taken: ProfileView) -> None:
    compared = profiling.compare(ctx, taken.id, taken.id)
    pairs = (*compared.stages, *compared.layers, *compared.operators, *compared.functions, compared.wall)
    assert {each.delta_s for each in pairs} == {0.0}
    assert "operators" in {flame.name for flame in compared.flames}


def test_profiles_are_found_renamed_and_deleted(ctx: Context, taken: ProfileView) -> None:
    assert profiling.search(ctx, q="first").items[0].id == taken.id
    assert profiling.search(ctx, ref="slow@1").total >= 1
    assert profiling.search(ctx, ref="slow@2").total == 0
    assert profiling.rename(ctx, taken.id, " before ", actor="ana").name == "before"
    with pytest.raises(InvalidInputError, match="printable"):
        profiling.rename(ctx, taken.id, "a\nb", actor="ana")
    other = profiling.start(ctx, "slow@1", profiles.QUICK, actor="ana")
    jobs.cancel(ctx, other.job_id, actor="ana")
    profiling.delete(ctx, other.id, actor="ana")
    for gone in (other.id, "0" * 32, "../../etc"):
        with pytest.raises(NotFoundError, match="no profile"):
            profiling.get(ctx, gone)


def finished(ctx: Context, size_bytes: int) -> str:
    """A report that takes so much room, made without a process."""
    view = profiling.start(ctx, "slow@1", profiles.QUICK, actor="ana")
    jobs.cancel(ctx, view.job_id, actor="ana")
    made = Report(source="version", key=KeyFigures(requests=1, batch=1, wall_s=0.1))
    (profile_folders.begin(ctx.settings, view.id) / "report.json").write_bytes(msgspec.json.encode(made))
    profile_folders.finish(ctx.settings, view.id)
    assert profiling.finished(ctx, view.id, made.key, size_bytes)
    return view.id


def test_reports_go_when_their_time_is_over_or_others_need_the_room(tmp_path: Path) -> None:
    home = tmp_path / "home"
    ctx = open_home(home, architectures=(profiles.NETWORK,), profile_total_bytes=1024**2)
    try:
        profiles.register(ctx, tmp_path / "slow")
        oldest, older, newest = (finished(ctx, 500_000) for _ in range(3))
        assert housekeeping.tidy(ctx, time.time()).profiles == 1
        assert [each.id for each in profiling.search(ctx).items] == [newest, older]
        assert not profile_folders.of_report(ctx.settings, oldest).exists()
        (ctx.settings.profiles_dir / newest / "report.json").unlink()
        with pytest.raises(GoneError, match="files of profile"):
            profiling.detail(ctx, newest)
        assert housekeeping.tidy(ctx, time.time() + 31 * 24 * 3600).profiles == 2
        assert list(ctx.settings.profiles_dir.iterdir()) == []
    finally:
        ctx.engine.dispose()


def test_a_report_deleted_while_it_is_taken_leaves_nothing(
    ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = profiling.start(ctx, "slow@1", profiles.QUICK, actor="ana")
    monkeypatch.setattr(profiling, "finished", lambda *_: False)
    monkeypatch.setattr(kind, "_version", lambda *_: Report(source="version", key=KeyFigures(
        requests=1, batch=1, wall_s=0.1
    )))  # fmt: skip
    assert lab.perform(ctx, view.job_id).state == JobState.CANCELLED
    assert not [path for path in ctx.settings.profiles_dir.iterdir() if view.id in path.name]


def test_a_cancelled_profile_ends_its_process(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    view = profiling.start(ctx, "slow@1", profiles.QUICK, actor="ana")
    follow = profiling_jobs._follow

    def cancelled(child: object, timeout_s: float, progress: object) -> None:
        jobs.cancel(ctx, view.job_id, actor="ana")
        follow(child, timeout_s, progress)  # type: ignore[arg-type]

    monkeypatch.setattr(profiling_jobs, "_follow", cancelled)
    assert lab.perform(ctx, view.job_id).state == JobState.CANCELLED
    mine = (process.cmdline() for process in psutil.Process().children(recursive=True))
    assert not [line for line in mine if profiling_jobs.MODULE in line]
    assert not (ctx.settings.profiles_dir / f"{view.id}.part").exists()


class Marked:
    """A subject of which torch.profiler cannot read the stacks."""

    device = "cpu"

    @contextmanager
    def marked(self, mark: Callable[[str], AbstractContextManager[Any]]) -> Iterator[None]:
        self.mark = mark
        yield

    def ask(self) -> Asked:
        started = time.perf_counter()
        with self.mark("predict"):
            torch.tanh(torch.ones(4))
        return Asked(StageTimes(), 0.0, time.perf_counter() - started)


def test_stacks_that_cannot_be_read_cost_the_layers_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = operators._trace

    def broken(*given: Any, with_stack: bool) -> Any:
        if with_stack:
            raise UnicodeDecodeError("utf-8", b"\xa0", 0, 1, "invalid start byte")
        return really(*given, with_stack=with_stack)

    monkeypatch.setattr(operators, "_trace", broken)
    subject = Marked()
    taken = operators.take(subject, subject.ask, 1, 10.0, tmp_path)  # type: ignore[arg-type]
    assert taken.layers == ()
    (note,) = taken.notes
    assert "Stacks of this model cannot be read" in note
    assert "aten::tanh" in {each.name for each in taken.operators}
    seen = {node.name for node in intervals.walk(taken.roots)}
    assert seen >= {"request", "predict", "aten::tanh"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"requests": 0}, "requests must be 1"),
        ({"seconds": float("nan")}, "seconds must be"),
        ({"batch": 10_000}, "batch must be"),
        ({"take": ()}, "at least one"),
        ({"sweep": (4, 2)}, "ascending"),
        ({"sweep": tuple(range(1, 40))}, "at most"),
    ],
)
def test_wishes_have_bounds(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Wish(**changes)  # type: ignore[arg-type]


def test_what_cannot_be_profiled_is_refused_at_once(ctx: Context) -> None:
    with pytest.raises(NotFoundError):
        profiling.start(ctx, "slow@9", actor="ana")
    with pytest.raises(NotFoundError, match="no endpoint"):
        profiling.start_live(ctx, "nowhere", actor="ana")
