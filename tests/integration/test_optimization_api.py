"""The lab over REST: every route, every refusal in the shape that all errors have."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from control_plane.domain.optimization import Decision
from control_plane.domain.views import Example
from control_plane.optimization import catalog
from control_plane.services import optimization_folders, optimization_trials
from control_plane.services.context import Context
from control_plane.services.optimization_trials import Idea
from tests.fakes import lab, models
from tests.fakes.api_server import serving
from tests.fakes.registry import open_home, register

IMAGES = [image.tolist() for image in models.digits_data()[0][:4]]
CALIBRATED = next(method.name for method in catalog.methods() if method.calibrated)


@pytest.fixture(scope="module")
def ctx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    """digits@1 with four examples, and a rejected variant of it."""
    context = open_home(tmp_path_factory.mktemp("api") / "home", gateway_port=1)
    examples = [Example({"image": image}, str(at)) for at, image in enumerate(IMAGES)]
    register(context, format="huggingface", examples=examples)
    rejected = lab.lineage(accepted=False)
    register(context, content=b"variant", parent_ref="digits@1", lineage=rejected)
    yield context
    context.engine.dispose()


@pytest.fixture(scope="module")
def api(ctx: Context) -> Iterator[httpx.Client]:
    with (
        serving(ctx) as port,
        httpx.Client(
            base_url=f"http://127.0.0.1:{port}/api/v1", headers={"X-Signalbox-Actor": "ana"}, trust_env=False
        ) as client,
    ):
        yield client


def refused(answer: httpx.Response, status: int, code: str) -> str:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["code"] == code
    return str(error["message"])


def send(api: httpx.Client, content: bytes, version: str = "digits@1") -> httpx.Response:
    return api.post(
        "/optimization/calibration",
        params={"version": version},
        content=content,
        headers={"content-type": "application/octet-stream"},
    )


def test_what_can_be_tried_is_told_with_forms(api: httpx.Client) -> None:
    told = api.get("/optimization/methods", params={"version": "digits@1"}).json()
    assert [each["name"] for each in told["methods"]] == list(catalog.names())
    assert {"params", "inapplicable", "estimate_s", "calibrated"} <= set(told["methods"][0])
    assert [each["source"] for each in told["calibrations"]] == ["examples", "captures", "upload"]
    assert told["holdout"]["rows"] == 4
    assert told["machine"]["cores"] >= 1
    refused(api.get("/optimization/methods", params={"version": "digits@9"}), 404, "not_found")
    refused(api.get("/optimization/methods"), 400, "invalid_input")


def test_rows_are_sent_as_they_are_and_then_named_by_their_digest(api: httpx.Client) -> None:
    packed = io.BytesIO()
    np.savez(packed, image=np.array(IMAGES, dtype=np.float32))
    lines = "\n".join(json.dumps({"inputs": {"image": image}}) for image in IMAGES).encode()
    kept, again = send(api, packed.getvalue()), send(api, lines)
    assert kept.status_code == again.status_code == 201
    assert kept.json() == again.json()
    body = {
        "version": "digits@1",
        "method": CALIBRATED,
        "calibration": {"source": "upload", "digest": kept.json()["digest"]},
        "conditions": {"batches": [1, 4], "threads": 1},
        "budget": {"min_agreement": 0.9},
    }
    job = api.post("/optimization/jobs", json=body)
    assert job.status_code == 201, job.text
    assert (job.json()["lane"], job.json()["kind"]) == ("lab", "optimize")


def test_rows_that_do_not_fit_are_refused_with_row_and_input(api: httpx.Client) -> None:
    bad = json.dumps([{"inputs": {"image": IMAGES[0]}}, {"inputs": {"image": [[1.0]]}}]).encode()
    assert "row 2: input 'image' must have shape" in refused(send(api, bad), 400, "invalid_input")
    nan = bad.replace(b"1.0", b"NaN")
    assert "row 2" in refused(send(api, nan), 400, "invalid_input")
    assert "no row" in refused(send(api, b""), 400, "invalid_input")
    assert "64 MiB" in refused(send(api, bytes(64 * 1024**2 + 1)), 413, "too_large")
    refused(send(api, bad, "nothing@1"), 404, "not_found")


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("jobs", {"method": "torchscript-trace", "params": {"thaw": 1}}, "thaw: Extra inputs"),
        ("jobs", {"method": "nonsense"}, "known methods are"),
        ("jobs", {}, "method"),
        ("jobs", {"method": "torchscript-trace", "conditions": {"batches": [8, 1]}}, "ascending"),
        ("jobs", {"method": "torchscript-trace", "calibration": {"source": "upload"}}, "digest"),
        ("jobs", {"method": "torchscript-trace", "calibration": {"source": "heaven"}}, "calibration.source"),
        ("autotune", {"objective": "fame"}, "latency, throughput"),
        ("autotune", {"minutes": 0}, "minutes"),
        ("autotune", {"budget": {"min_speedup": 0.5}}, "budget.min_speedup"),
        ("autotune", {"threads": 1}, "threads"),
    ],
    ids=[
        "param", "method", "no method", "batches", "no digest", "source", "objective", "minutes", "budget",
        "unknown",
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(
    api: httpx.Client, path: str, body: dict[str, Any], said: str
) -> None:
    answer = api.post(f"/optimization/{path}", json={"version": "digits@1", **body})
    assert said in refused(answer, 400, "invalid_input")


def test_a_search_and_its_trials_are_told_and_registered(api: httpx.Client, ctx: Context) -> None:
    body = {"version": "digits@1", "objective": "size", "minutes": 2}
    job = api.post("/optimization/autotune", json=body).json()
    assert api.get(f"/jobs/{job['id']}/trials").json() == []
    optimization_trials.add(ctx, job["id"], [Idea("torchscript-trace", {"freeze": True}), Idea("x", {})])
    decision = Decision(accepted=True, reasons=("4.00 times smaller",))
    optimization_trials.measured(ctx, job["id"], 1, lab.report(), decision)
    path = f"/jobs/{job['id']}/trials/1"
    trial = api.get(path).json()
    assert trial["report"]["answers"]["agreed"] == 100
    assert (trial["decision"]["accepted"], trial["registrable"]) == (True, False)
    search = api.get(f"/jobs/{job['id']}/search").json()
    assert (search["objective"], search["best"], search["front"]) == ("size", 1, [1])
    assert "is gone" in refused(api.post(path + "/register"), 409, "conflict")
    marker = optimization_folders.of_trial(optimization_folders.of_job(ctx.settings, job["id"]), 1)
    marker.mkdir(parents=True)
    (marker / optimization_folders.BUILT).write_text("{}")
    queued = api.post(path + "/register")
    assert queued.status_code == 202
    assert api.post(path + "/register").json()["id"] == queued.json()["id"]
    assert "trial 2 is queued" in refused(api.post(path[:-1] + "2/register"), 409, "conflict")
    refused(api.get(path[:-1] + "7"), 404, "not_found")
    refused(api.get("/jobs/nothing/trials"), 404, "not_found")
    refused(api.get(f"/jobs/{queued.json()['id']}/search"), 404, "not_found")


def test_people_do_not_submit_the_labs_jobs_past_its_checks(api: httpx.Client) -> None:
    for kind in ("optimize", "autotune", "register_variant"):
        answer = api.post("/jobs", json={"kind": kind, "params": {}})
        assert "known kinds are" in refused(answer, 400, "invalid_input")


def test_a_rejected_variant_needs_a_waiver_over_rest(api: httpx.Client) -> None:
    deploy = {"version": "digits@2"}
    assert "digits@2 was rejected" in refused(api.put("/endpoints/e", json=deploy), 409, "rejected")
    alias = {"version": 2}
    refused(api.put("/models/digits/aliases/champion", json=alias), 409, "rejected")
    assert api.put("/endpoints/e", json={**deploy, "waiver": "a demo"}).status_code == 200
    waived = api.put("/models/digits/aliases/champion", json={**alias, "waiver": "a demo"})
    assert waived.json()["aliases"]["champion"] == "digits@2"
    rollout = {"endpoint": "e", "candidate": "digits@2", "waiver": ""}
    refused(api.post("/rollouts", json=rollout), 409, "conflict")
