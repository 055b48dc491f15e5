"""The debugger over REST and on the command line: every route, every command, and what they refuse."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from control_plane.cli.app import app
from control_plane.debugging import report
from control_plane.domain.views import Example
from control_plane.jobs.kinds import debug
from control_plane.services import jobs
from control_plane.services.context import Context
from serving_agent.contract.inspection import InspectionOrder
from tests.fakes import debugged, lab, models
from tests.fakes.api_server import serving
from tests.fakes.registry import open_home, register
from tests.fakes.rollouts import serve
from tests.fakes.waiting import wait_until

IMAGES = [image.tolist() for image in models.digits_data()[0][:2]]
RUN = "0" * 32


@pytest.fixture(scope="module")
def ctx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    """digits@1 with two examples and digits@2; nothing is really inspected."""
    context = open_home(tmp_path_factory.mktemp("api") / "home", gateway_port=1)
    register(context, examples=[Example({"image": image}, str(at)) for at, image in enumerate(IMAGES)])
    register(context, content=b"other")
    serve(context, "quiet")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(debug.inspecting, "inspect", debugged.inspector(during=_checked))
        yield context
    context.engine.dispose()


def _checked(order: InspectionOrder) -> None:
    assert order.inputs[0].data


@pytest.fixture(scope="module")
def port(ctx: Context) -> Iterator[int]:
    with serving(ctx) as opened:
        yield opened


@pytest.fixture(scope="module")
def api(port: int) -> Iterator[httpx.Client]:
    with httpx.Client(
        base_url=f"http://127.0.0.1:{port}/api/v1", headers={"X-Signalbox-Actor": "ana"}, trust_env=False
    ) as client:
        yield client


@pytest.fixture(scope="module")
def run(ctx: Context, api: httpx.Client) -> dict[str, Any]:
    """A run of both versions that is done."""
    return done(ctx, started(api, against="digits@2"))


def started(api: httpx.Client, **changes: Any) -> dict[str, Any]:
    body = {"version": "digits@1", "input": {"kind": "example", "number": 2}, **changes}
    answer = api.post("/debug-runs", json=body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def done(ctx: Context, begun: dict[str, Any]) -> dict[str, Any]:
    assert lab.perform(ctx, begun["job_id"]).state == "succeeded"
    return begun


def refused(answer: httpx.Response, status: int, code: str, said: str = "") -> None:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["code"] == code
    assert said in error["message"], error


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


# REST


def test_a_run_is_told_with_all_that_was_seen(api: httpx.Client, run: dict[str, Any]) -> None:
    told = api.get(f"/debug-runs/{run['id']}").json()
    assert told["view"]["state"] == "succeeded"
    assert [side["ref"] for side in told["sides"]] == ["digits@1", "digits@2"]
    assert told["sides"][0]["run"]["points"][0]["id"] == "layer"
    assert told["comparison"]["pairs"][0]["equal"] is True
    listed = api.get("/debug-runs", params={"q": "digits@2"}).json()
    assert run["id"] in [each["id"] for each in listed["items"]]


def test_values_are_given_in_parts(api: httpx.Client, run: dict[str, Any]) -> None:
    path = f"/debug-runs/{run['id']}/values"
    part = api.get(path, params={"point": "layer", "start": "1", "stop": "3"}).json()
    assert (part["values"], part["shape"], part["truncated"]) == ([1.0, 2.0], [4], False)
    named = api.get(path, params={"point": "inputs", "tensor": "x", "side": "b"}).json()
    assert named["values"] == [1.0] * 4
    refused(api.get(path, params={"point": "nowhere"}), 404, "not_found", "nowhere")
    refused(api.get(path, params={"point": "layer", "start": "-1"}), 400, "invalid_input", "start holds")
    refused(api.get(path, params={"point": "layer", "side": "c"}), 400, "invalid_input")
    refused(api.get(path), 400, "invalid_input")


def test_breakpoints_name_the_place_where_they_stop(api: httpx.Client, run: dict[str, Any]) -> None:
    path = f"/debug-runs/{run['id']}/find"
    assert api.get(path, params={"condition": "|x| > 2"}).json() == {"place": 0}
    assert api.get(path, params={"condition": "|x| > 2", "after": 0}).json() == {"place": None}
    refused(api.get(path, params={"condition": "[x"}), 400, "invalid_input", "no breakpoint")


def test_a_run_is_named_edited_exported_and_deleted(
    ctx: Context, api: httpx.Client, run: dict[str, Any]
) -> None:
    path = f"/debug-runs/{run['id']}"
    assert api.put(f"{path}/name", json={"name": "mine"}).json()["saved"] is True
    change = {"point": "layer", "index": [0], "value": 2.5}
    planted = {"point": "layer", "index": [1], "value": "-inf"}
    child = api.post(f"{path}/edits", json={"edits": [change, planted]})
    assert child.status_code == 201
    assert child.json()["edits"] == [{**change, "tensor": 0}, {**planted, "tensor": 0}]
    refused(api.get(f"/debug-runs/{child.json()['id']}/export"), 409, "conflict", "goes on")
    done(ctx, child.json())
    refused(
        api.post(f"{path}/edits", json={"edits": [{"point": "x", "value": 1}]}), 400, "invalid_input", "'x'"
    )
    exported = api.get(f"{path}/export")
    assert report.read(exported.content).detail.view.name == "mine"
    assert "attachment" in exported.headers["content-disposition"]
    page = api.get(f"{path}/export", params={"form": "html"})
    assert page.headers["content-type"].startswith("text/html")
    assert "<h1>mine</h1>" in page.text
    refused(api.get(f"{path}/export", params={"form": "pdf"}), 400, "invalid_input")
    assert api.delete(f"/debug-runs/{child.json()['id']}").status_code == 204
    refused(api.delete(f"/debug-runs/{child.json()['id']}"), 404, "not_found")


def test_inputs_of_every_kind_are_taken(ctx: Context, api: httpx.Client, run: dict[str, Any]) -> None:
    told = api.get("/debug-runs/inputs", params={"version": "digits@1"}).json()
    assert (len(told["examples"]), told["image_inputs"]) == (2, ["image"])
    array = npy(np.zeros((1, 1, 8, 8), np.float32))
    picture = io.BytesIO()
    from PIL import Image

    Image.new("L", (8, 8), 9).save(picture, "PNG")
    for source in (
        {"kind": "json", "input": [IMAGES[0]]},
        {"kind": "npy", "files": {"": base64.b64encode(array).decode()}},
        {"kind": "image", "content": base64.b64encode(picture.getvalue()).decode()},
        {"kind": "random", "seed": 4},
        {"kind": "run", "run": run["id"]},
    ):
        begun = started(api, input=source)
        assert begun["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [1, 1, 8, 8]}], source
        api.delete(f"/debug-runs/{begun['id']}")


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({}, 400, "version"),
        ({"version": "digits@1", "input": {"kind": "fame"}}, 400, "fame"),
        ({"version": "digits@1", "input": {"kind": "npy", "files": {"": "no base64"}}}, 400, "input"),
        ({"version": "digits@1", "input": {"kind": "text", "text": "a"}}, 400, "no input takes a text"),
        ({"version": "digits@1", "input": {"kind": "random"}, "edits": [{"point": "a"}]}, 400, "value"),
        ({"version": "digits@1", "input": {"kind": "random"}, "more": 1}, 400, "more"),
        ({"version": "digits@7", "input": {"kind": "random"}}, 404, "digits@7"),
    ],
)
def test_bodies_that_are_wrong_are_refused(
    api: httpx.Client, body: dict[str, Any], status: int, said: str
) -> None:
    refused(
        api.post("/debug-runs", json=body), status, {400: "invalid_input", 404: "not_found"}[status], said
    )


def test_what_is_not_there_is_not_found(api: httpx.Client) -> None:
    for path in (f"/debug-runs/{RUN}", "/debug-runs/..%2f..%2fetc", f"/debug-runs/{RUN}/export"):
        refused(api.get(path), 404, "not_found")
    refused(api.get("/debug-runs/captures", params={"endpoint": "none"}), 404, "not_found")
    asked = {"rollout": "none", "disagreement": "none"}
    refused(api.get("/debug-runs/disagreement", params=asked), 404, "not_found")


# the command line


class Shell:
    """The command line in this process, while jobs are carried out beside it."""

    def __init__(self, ctx: Context, port: int) -> None:
        self._ctx = ctx
        self._common = ("--home", str(ctx.settings.home), "--web-port", str(port))

    def run(self, *arguments: str) -> Result:
        return CliRunner(env={"COLUMNS": "300"}).invoke(app, [*arguments, *self._common])

    def while_a_job_runs(self, *arguments: str) -> Result:
        def work() -> None:
            queued = wait_until(
                lambda: jobs.search(self._ctx, state="queued").items, timeout_s=60, what=lambda: "no job came"
            )
            lab.perform(self._ctx, queued[0].id)

        worker = threading.Thread(target=work)
        worker.start()
        try:
            return self.run(*arguments)
        finally:
            worker.join(60)


@pytest.fixture(scope="module")
def shell(ctx: Context, port: int) -> Shell:
    return Shell(ctx, port)


def test_a_run_is_shown_and_written_to_a_file(shell: Shell, tmp_path: Path) -> None:
    page = tmp_path / "run.html"
    ran = shell.while_a_job_runs(
        "debug", "digits@1", "--against", "digits@2", "--random", "3", "--edit", "layer[0][1]=2", "--export",
        str(page),
    )  # fmt: skip
    assert ran.exit_code == 0, ran.output
    for said in ("A: digits@1", "B: digits@2", "edited: layer[0][1] = 2", "inputs", "layer", "SQNR",
                 "All layers that both have are equal"):  # fmt: skip
        assert said in ran.stdout, said
    assert "<!doctype html>" in page.read_text()


def test_runs_are_listed_shown_edited_named_and_deleted(shell: Shell, tmp_path: Path) -> None:
    body = tmp_path / "input.json"
    body.write_text(json.dumps({"input": [IMAGES[0]]}))
    ran = shell.while_a_job_runs("debug", "digits@1", "--input", str(body), "--json")
    run_id = json.loads(ran.stdout)["view"]["id"]
    assert run_id in shell.run("debug-runs").stdout
    assert run_id not in shell.run("debug-runs", "list", "--saved").stdout
    shown = shell.run("debug-runs", "show", run_id, "--break", "|x| > 2").stdout
    assert "|x| > 2 is first met at layer" in shown
    assert "no point meets nan" in shell.run("debug-runs", "show", run_id, "--break", "nan").stdout
    edited = shell.while_a_job_runs("debug-runs", "edit", run_id, "--edit", "layer[0][*]=1", "--name", "mine")
    assert "edited: layer[0][*] = 1" in edited.stdout, edited.output
    assert "mine" in shell.run("debug-runs", "list", "--saved", "--query", "mine").stdout
    assert "kept until" in shell.run("debug-runs", "save", run_id, "first").stdout
    exported = tmp_path / "run.json"
    assert shell.run("debug-runs", "show", run_id, "--export", str(exported)).exit_code == 0
    assert report.read(exported.read_bytes()).detail.view.name == "first"
    assert shell.run("debug-runs", "delete", run_id).exit_code == 0
    assert shell.run("debug-runs", "show", run_id).exit_code == 3


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("debug", "digits@1", "--random", "1", "--example", "1"), 2, "several are named"),
        (("debug", "digits@1", "--edit", "layer"), 2, "is no edit"),
        (("debug", "digits@1", "--npy", "missing.npy"), 1, "missing.npy"),
        (("debug", "digits@9"), 3, "digits@9"),
        (("debug", "digits@1", "--captured", "none"), 3, "no endpoint 'none'"),
        (("debug", "digits@1", "--captured", "quiet"), 3, "quiet keeps no request"),
        (("debug", "digits@1", "--example", "7"), 2, "no example 7"),
        (("debug-runs", "show", RUN), 3, "no debugger run"),
        (("debug-runs", "delete", RUN), 3, "no debugger run"),
    ],
)
def test_what_is_wrong_on_the_command_line_is_told(
    shell: Shell, arguments: tuple[str, ...], code: int, said: str
) -> None:
    ran = shell.run(*arguments)
    assert (ran.exit_code, said in ran.output) == (code, True), ran.output
