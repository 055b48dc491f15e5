"""Profiles over REST and from the command line, against reports that are there."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from control_plane.cli import waiting
from control_plane.cli.app import app
from control_plane.domain.job import JobState
from control_plane.registry import session as sessions
from control_plane.registry.tables import Job
from control_plane.services import profiling
from control_plane.services.context import Context
from tests.fakes import seeded_profiles
from tests.fakes.api_server import serving
from tests.fakes.registry import open_home, register


@pytest.fixture(scope="module")
def ctx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    """digits@1 with profiles in every state."""
    context = open_home(tmp_path_factory.mktemp("api") / "home", gateway_port=1)
    register(context, format="huggingface")
    yield context
    context.engine.dispose()


@pytest.fixture(scope="module")
def ids(ctx: Context) -> dict[str, str]:
    return seeded_profiles.fill(ctx)


@pytest.fixture(scope="module")
def port(ctx: Context) -> Iterator[int]:
    with serving(ctx) as listening:
        yield listening


@pytest.fixture(scope="module")
def api(port: int) -> Iterator[httpx.Client]:
    base = f"http://127.0.0.1:{port}/api/v1"
    with httpx.Client(base_url=base, headers={"X-Signalbox-Actor": "ana"}, trust_env=False) as client:
        yield client


def refused(answer: httpx.Response, status: int, code: str) -> str:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["code"] == code
    return str(error["message"])


def test_every_part_of_a_report_is_served(api: httpx.Client, ids: dict[str, str]) -> None:
    base = f"/profiles/{ids['before']}"
    found = api.get(base).json()
    assert found["profile"]["summary"]["top"] == "encoder.1"
    assert found["summary"]["costs"][0]["name"] == "encoder.1"
    assert api.get(f"{base}/report").json()["knee"] == 8
    page = api.get(f"{base}/report.html")
    assert page.headers["content-type"].startswith("text/html")
    assert "attachment" in page.headers["content-disposition"]
    table = api.get(f"{base}/operators.csv")
    assert next(csv.reader(io.StringIO(table.text)))[:2] == ["name", "shapes"]
    assert api.get(f"{base}/speedscope.json").json() == {"profiles": []}
    assert "was not taken" in refused(api.get(f"{base}/trace.json.gz"), 404, "not_found")
    refused(api.get(f"{base}/nothing.csv"), 400, "invalid_input")


def test_profiles_are_listed_compared_renamed_and_deleted(
    ctx: Context, api: httpx.Client, ids: dict[str, str]
) -> None:
    assert api.get("/profiles", params={"version": "digits@1"}).json()["total"] >= 5
    compared = api.get("/profiles/compare", params={"a": ids["before"], "b": ids["after"]}).json()
    assert compared["layers"][0]["name"] == "encoder.1"
    other = seeded_profiles.add(ctx, seeded_profiles.report())
    assert api.patch(f"/profiles/{other}", json={"name": "third"}).json()["name"] == "third"
    assert api.delete(f"/profiles/{other}").status_code == 204
    refused(api.get(f"/profiles/{other}"), 404, "not_found")
    assert "running" in refused(api.get(f"/profiles/{ids['running']}/report"), 409, "conflict")
    assert "no such rows" in refused(api.get(f"/profiles/{ids['failed']}/report"), 409, "conflict")


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({}, 400, "either a version or an endpoint"),
        ({"version": "digits@1", "endpoint": "digits"}, 400, "either a version or an endpoint"),
        ({"version": "digits@1", "requests": 0}, 400, "requests must be"),
        ({"version": "digits@1", "take": ["secrets"]}, 400, "take"),
        ({"version": "digits@9"}, 404, "digits"),
        ({"endpoint": "nowhere"}, 404, "no endpoint"),
    ],
)
def test_what_cannot_be_taken_is_refused(
    body: dict[str, Any], status: int, message: str, api: httpx.Client
) -> None:
    answer = api.post("/profiles", json=body)
    assert answer.status_code == status
    assert message in answer.text


def run(ctx: Context, port: int, *arguments: str) -> Any:
    common = ("--home", str(ctx.settings.home), "--web-port", str(port))
    return CliRunner(env={"COLUMNS": "300"}).invoke(app, ["profile", *arguments, *common])


def test_the_command_line_tells_the_costs_and_writes_the_files(
    ctx: Context, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def done(api: Any, out: Any, job_id: str) -> Any:
        """The job's own process is played: its report is that of a slow layer."""
        del out
        (view,) = [each for each in profiling.search(ctx).items if each.job_id == job_id]
        assert (view.asked.requests, view.asked.take, view.asked.input) == (7, ("operators",), "random")
        made = seeded_profiles.add(ctx, seeded_profiles.report())
        folder = ctx.settings.profiles_dir
        (folder / made).rename(folder / view.id)
        profiling.finished(ctx, view.id, seeded_profiles.report().key, 1)
        with sessions.write(ctx.engine) as session:
            session.get_one(Job, job_id).state = JobState.SUCCEEDED
        return api.get(f"/jobs/{job_id}")

    monkeypatch.setattr(waiting, "for_job", done)
    said = run(
        ctx, port, "digits@1", "--requests", "7", "--take", "operators", "--random", "--out", str(tmp_path)
    )
    assert said.exit_code == 0, said.output
    for part in ("the largest cost is the layer encoder.1", "64%", "let requests share batches", "?run="):
        assert part in said.output, said.output
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {
        "report.json", "report.html", "speedscope.json",
        "operators.csv", "functions.csv", "layers.csv", "sweep.csv",
    }  # fmt: skip
    assert json.loads((tmp_path / "report.json").read_bytes())["key"]["top"] == "encoder.1"


def test_the_command_line_names_one_thing(ctx: Context, port: int) -> None:
    for arguments in ((), ("digits@1", "--endpoint", "digits")):
        said = run(ctx, port, *arguments)
        assert said.exit_code != 0
        assert "either a version or --endpoint" in said.output
