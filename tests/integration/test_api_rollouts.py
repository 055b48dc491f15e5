"""Rollouts, freeze windows and webhooks over real HTTP."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from control_plane.domain import rollout as moves
from control_plane.services.context import Context
from tests.fakes.api_server import serving
from tests.fakes.registry import open_home
from tests.fakes.rollouts import give_verdict, move, two_versions

_PAIR = {"endpoint": "digits", "candidate": "digits@2"}


@pytest.fixture
def ctx(tmp_path: Path) -> Iterator[Context]:
    context = open_home(tmp_path / "home", gateway_port=1)
    two_versions(context)
    yield context
    context.engine.dispose()


@pytest.fixture
def api(ctx: Context) -> Iterator[httpx.Client]:
    with (
        serving(ctx) as port,
        httpx.Client(
            base_url=f"http://127.0.0.1:{port}/api/v1", headers={"X-Signalbox-Actor": "ana"}, trust_env=False
        ) as client,
    ):
        yield client


def begin(api: httpx.Client, **changes: Any) -> dict[str, Any]:
    answer = api.post("/rollouts", json={"endpoint": "digits", "candidate": "digits@2", **changes})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def error(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()["error"]
    return found


def test_a_rollout_from_start_to_report(api: httpx.Client, ctx: Context) -> None:
    steps = [{"weight": 0.5, "bake_s": 9, "approval": True}, {"weight": 1}]
    view = begin(api, steps=steps, guardrails={"errors": {"tolerance": 0.01}}, warm_s=30)
    assert (view["state"], [s["bake_s"] for s in view["steps"]]) == ("starting", [9.0, 300.0])
    assert api.get("/endpoints/digits/rollout").json()["id"] == view["id"]
    assert api.get(f"/rollouts/{view['id']}").json()["id"] == api.get("/rollouts/digits").json()["id"]
    assert api.get("/rollouts", params={"state": ["starting", "baking"]}).json()["total"] == 1
    assert api.get("/rollouts", params={"endpoint": "cats"}).json()["total"] == 0
    for change in (moves.started, moves.gates_passed, moves.confirmed):
        move(ctx, "digits", lambda rollout, change=change: change(rollout, time.time()))  # type: ignore[misc]
    path = f"/rollouts/{view['id']}"
    seen = api.get(path).json()
    longer = api.post(f"{path}/extend", json={"seconds": 5, "expected_revision": seen["revision"]}).json()
    assert longer["steps"][0]["bake_s"] == 14.0
    give_verdict(ctx, "digits", "PASS")
    expected = {"expected_step": longer["step"], "expected_revision": longer["revision"]}
    assert api.post(f"{path}/promote", json=expected).json()["weight"] == 1.0
    stale = error(api.post(f"{path}/promote", json=expected), 409)
    assert (stale["details"]["moved_by"], stale["details"]["step"]) == ("ana", 2)
    assert api.post(f"{path}/rollback").json()["state"] == "rolling_back"
    events = api.get(f"{path}/events", params={"page_size": 2}).json()
    assert [each["action"] for each in events["items"]] == ["rollout.rollback_requested", "rollout.promoted"]
    assert api.get(f"{path}/disagreements").json() == []
    assert api.get(f"{path}/report").json()["rollout"]["id"] == view["id"]
    text = api.get(f"{path}/report", params={"format": "md"})
    assert text.headers["content-type"].startswith("text/markdown")
    assert text.text.startswith("# Rollout of digits@2")


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/rollouts", {"endpoint": "digits"}, 400),
        ("POST", "/rollouts", {"endpoint": "digits", "candidate": "digits@2", "colour": 1}, 400),
        ("POST", "/rollouts", {"endpoint": "digits", "candidate": "digits@2", "steps": [{"weight": 2}]}, 400),
        ("POST", "/rollouts", {**_PAIR, "guardrails": {"errors": {"tolerance": 1.0}}}, 400),
        ("POST", "/rollouts", {**_PAIR, "guardrails": {"latency": {"max_regression": 11}}}, 400),
        ("POST", "/rollouts", {"endpoint": "nobody", "candidate": "digits@2"}, 404),
        ("POST", "/rollouts", {"endpoint": "digits", "candidate": "digits@1"}, 409),
        ("POST", "/rollouts/digits/hold", {}, 404),
        ("GET", "/rollouts/nobody", None, 404),
        ("GET", "/endpoints/digits/rollout", None, 404),
        ("GET", "/rollouts?state=happy", None, 400),
        ("GET", "/rollouts/digits/report?format=pdf", None, 400),
        ("POST", "/rollouts/simulate", {}, 400),
        ("POST", "/rollouts/simulate", {"rate": 5, "p50_s": 1, "p95_s": 0.5}, 400),
        ("PUT", "/endpoints/digits/rollout-policy", {"colour": 1}, 400),
        ("GET", "/endpoints/nobody/rollout-policy", None, 404),
        ("POST", "/freeze-windows", {"starts_at": 5, "ends_at": 4, "reason": "x"}, 400),
        ("POST", "/freeze-windows", {"starts_at": 5, "ends_at": 6, "reason": ""}, 400),
        ("POST", "/freeze-windows", {"starts_at": 5, "ends_at": 6, "reason": "x", "endpoint": "no"}, 404),
        ("DELETE", "/freeze-windows/none", None, 404),
        ("POST", "/webhooks", {"url": "ftp://x"}, 400),
        ("DELETE", "/webhooks/none", None, 404),
    ],
)
def test_what_cannot_be_done(
    api: httpx.Client, method: str, path: str, body: dict[str, Any] | None, status: int
) -> None:
    assert error(api.request(method, path, json=body), status)["message"]


def test_an_unknown_command_lists_those_there_are(api: httpx.Client) -> None:
    view = begin(api)
    said = error(api.post(f"/rollouts/{view['id']}/explode"), 400)
    assert "promote-full" in said["message"]


def test_a_deploy_beside_a_rollout_names_it(api: httpx.Client) -> None:
    view = begin(api)
    said = error(api.put("/endpoints/digits", json={"version": "digits@2"}), 409)
    assert (said["details"]["rollout"], said["details"]["link"]) == (view["id"], f"/rollouts?id={view['id']}")


def test_a_simulation_by_given_figures(api: httpx.Client) -> None:
    answer = api.post("/rollouts/simulate", json={"rate": 50, "weights": [0.5], "endpoint": "digits"}).json()
    assert answer["origin"] == {
        "rate": "given", "error_rate": "assumed", "p50_s": "assumed", "p95_s": "assumed",
    }  # fmt: skip
    assert [step["weight"] for step in answer["prediction"]["steps"]] == [0.5, 1.0]
    assert answer["prediction"]["regressions"]


def test_a_policy_is_put_whole(api: httpx.Client) -> None:
    path = "/endpoints/digits/rollout-policy"
    put = api.put(path, json={"tester_header": True, "sticky": {"kind": "header", "name": "x-client"}}).json()
    assert put == api.get(path).json()
    assert (put["tester_header"], put["sticky"]["name"], put["warm_s"]) == (True, "x-client", 900.0)
    assert api.put(path, json={}).json()["tester_header"] is False


def test_freeze_windows(api: httpx.Client) -> None:
    now = time.time()
    body = {"starts_at": now - 5, "ends_at": now + 60, "reason": "holidays", "weekly": True}
    made = api.post("/freeze-windows", json={**body, "endpoint": "digits"})
    assert (made.status_code, made.json()["active"], made.json()["created_by"]) == (201, True, "ana")
    assert error(api.post("/rollouts", json={"endpoint": "digits", "candidate": "digits@2"}), 409)
    assert api.get("/freeze-windows", params={"endpoint": "cats"}).json() == []
    assert api.get("/freeze-windows").json() == [made.json()]
    assert api.delete(f"/freeze-windows/{made.json()['id']}").status_code == 204
    begin(api)


def test_webhooks(api: httpx.Client) -> None:
    made = api.post("/webhooks", json={"url": "http://127.0.0.1:1/hook"})
    assert made.status_code == 201
    assert made.json()["secret"].startswith("whsec_")
    begin(api)
    (listed,) = api.get("/webhooks").json()
    assert (listed["pending"], "secret" in listed) == (1, False)
    assert [d["type"] for d in api.get(f"/webhooks/{listed['id']}/deliveries").json()] == ["rollout.started"]
    assert api.delete(f"/webhooks/{listed['id']}").status_code == 204
    assert api.get("/webhooks").json() == []
