"""`optimize`, `autotune`, `trials` and `cancel` over real HTTP, while jobs run beside them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from control_plane.cli import waiting
from control_plane.cli.app import app
from control_plane.domain.views import Example
from control_plane.jobs import bench
from control_plane.optimization import catalog
from control_plane.services import jobs, versions
from control_plane.services.context import Context
from tests.fakes import killed_jobs, lab, models
from tests.fakes.api_server import serving
from tests.fakes.registry import open_home, register
from tests.fakes.waiting import wait_until

METHODS = ("dynamic_int8", "torchscript_trace")
TOLD = {"method", "params", "accepted", "speedup", "size_ratio", "agreement", "version"}


@pytest.fixture
def ctx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Context]:
    """digits@1 of weights, digits@2 a program; building and measuring are made up."""
    monkeypatch.setattr(
        catalog, "MODULES", [f"control_plane.optimization.methods.{name}" for name in METHODS]
    )
    monkeypatch.setattr(bench.building, "build", killed_jobs.builder(tmp_path / "builds", lambda: None))
    monkeypatch.setattr(bench.measuring, "measure", killed_jobs.measured)
    context = open_home(tmp_path / "home", gateway_port=1)
    examples = [Example({"image": image.tolist()}, "1") for image in models.digits_data()[0][:20]]
    register(context, format="huggingface", examples=examples)
    register(context, content=b"program", format="torchscript")
    yield context
    context.engine.dispose()


class Shell:
    """The command line in this process, against the API of *ctx*."""

    def __init__(self, ctx: Context, port: int) -> None:
        self.ctx, self._port = ctx, port

    def run(self, *arguments: str) -> Result:
        home = str(self.ctx.settings.home)
        common = ("--home", home, "--web-port", str(self._port))
        return CliRunner(env={"COLUMNS": "300"}).invoke(app, [*arguments, *common])

    def document(self, *arguments: str) -> Any:
        done = self.run(*arguments, "--json")
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    def while_jobs_run(self, *arguments: str) -> Any:
        """The document of a command that waits for the next job, which runs meanwhile."""

        def work() -> None:
            queued = wait_until(
                lambda: jobs.search(self.ctx, state="queued").items, timeout_s=60, what=lambda: "no job came"
            )
            lab.perform(self.ctx, queued[0].id)

        worker = threading.Thread(target=work)
        worker.start()
        try:
            return self.document(*arguments)
        finally:
            worker.join(60)


@pytest.fixture
def shell(ctx: Context) -> Iterator[Shell]:
    with serving(ctx) as port:
        yield Shell(ctx, port)


def test_what_applies_is_listed_with_reasons(shell: Shell) -> None:
    told = shell.document("optimize", "digits@2", "--list")
    reasons = {each["name"]: each["inapplicable"] for each in told["methods"]}
    assert "TorchScript already" in reasons["torchscript-trace"]
    shown = shell.run("optimize", "digits@1", "--list").stdout
    assert all(name in shown for name in reasons)
    assert "examples of digits@1 (20 rows)" in shown


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("optimize", "digits@1"), 2, "no method is named"),
        (("optimize", "digits@2", "--method", "torchscript-trace"), 4, "TorchScript already"),
        (("optimize", "digits@1", "--method", "torchscript-trace", "--param", "thaw=1"), 2, "thaw"),
        (("optimize", "digits@1", "--method", "torchscript-trace", "--param", "thaw"), 2, "NAME=VALUE"),
        (("optimize", "digits@99", "--list"), 3, "digits@99"),
        (("optimize", "digits@1", "--method", "x", "--calibration", "missing.npz"), 2, "missing.npz"),
        (("autotune", "digits@1", "--budget", "soon"), 2, "is no time"),
        (("autotune", "digits@1", "--batches", "1;2"), 2, "is no list"),
        (("autotune", "digits@1", "--batches", "8,1"), 2, "ascending"),
        (("autotune", "digits@1", "--objective", "fame"), 2, "fame"),
        (("trials", "nothing"), 3, "nothing"),
        (("cancel", "nothing"), 3, "nothing"),
    ],
    ids=lambda value: "-".join(value).replace("--", "") if isinstance(value, tuple) else None,
)
def test_what_goes_wrong_has_its_exit_code_and_sentence(
    shell: Shell, arguments: tuple[str, ...], code: int, said: str
) -> None:
    done = shell.run(*arguments)
    assert done.exit_code == code, done.output
    assert said in done.output
    assert "Traceback" not in done.output


def test_rows_of_the_wrong_shape_are_refused_before_anything_is_queued(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"inputs": {"image": [1.0]}}\n')
    done = shell.run("autotune", "digits@1", "--calibration", str(file))
    assert done.exit_code == 2
    assert "row 1: input 'image' must have shape" in done.output
    assert jobs.search(shell.ctx).total == 0


def test_a_variant_is_made_measured_and_told(shell: Shell) -> None:
    made = shell.while_jobs_run(
        "optimize", "digits@1", "--method", "dynamic-int8", "--param", "engine=onednn", "--wait",
        "--batches", "1,4", "--threads", "1", "--min-speedup", "1.5", "--min-agreement", "0.5",
    )  # fmt: skip
    assert set(made) >= TOLD
    assert made["params"]["engine"] == "onednn"
    assert (made["accepted"], made["agreement"], made["size_ratio"]) == (True, 1.0, 2.0)
    kept = versions.get(shell.ctx, made["version"]).lineage["optimization"]
    assert kept["report"]["conditions"]["batches"] == [1, 4]
    assert (kept["budget"]["min_speedup"], kept["budget"]["min_agreement"]) == (1.5, 0.5)


def test_autotune_waits_and_prints_its_variants_and_another_is_registered_by_number(shell: Shell) -> None:
    told = shell.while_jobs_run("autotune", "digits@1", "--objective", "throughput", "--budget", "90s")
    assert all(set(each) >= TOLD for each in told["variants"])
    assert [each["version"] for each in told["variants"] if each["version"]] == [told["best"]]
    best = next(each for each in told["variants"] if each["version"])
    assert best["speedup"] == max(each["speedup"] or 0 for each in told["variants"])
    listed = shell.run("trials", told["job"])
    assert all(each["method"] in listed.stdout for each in told["variants"])
    trials = shell.document("trials", told["job"])["trials"]
    other = next((each["number"] for each in trials if each["registrable"]), None)
    assert other is not None, trials
    made = shell.while_jobs_run("trials", told["job"], "--register", str(other))
    assert made["version_ref"] not in (None, told["best"])


def test_ctrl_c_leaves_the_job_and_says_how_to_end_it(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(waiting, "for_job", interrupted)
    done = shell.run("autotune", "digits@1")
    (job,) = jobs.search(shell.ctx).items
    assert done.exit_code == 130
    assert f"job {job.id} goes on" in done.output
    assert f"signalbox cancel {job.id}" in done.output
    assert job.state == "queued"
    assert shell.run("cancel", job.id).exit_code == 0
    assert jobs.get(shell.ctx, job.id).state == "cancelled"


def test_a_job_that_waits_says_how_many_come_before_it(shell: Shell) -> None:
    first = shell.document("autotune", "digits@1", "--no-wait")
    second = shell.run("optimize", "digits@1", "--method", "torchscript-trace")
    assert "is queued, 1 before it" in second.stdout
    places = {each["id"]: each["ahead"] for each in shell.document("jobs")["items"]}
    assert places.pop(first["id"]) == 0
    assert list(places.values()) == [1]
