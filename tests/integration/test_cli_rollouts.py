"""`signalbox rollout`, `freeze` and `webhook` against a REST API that is really serving."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from control_plane.cli.app import app
from control_plane.domain import rollout as moves
from control_plane.services import rollouts
from control_plane.services.context import Context
from tests.fakes.api_server import serving
from tests.fakes.registry import open_home
from tests.fakes.rollouts import give_verdict, move, two_versions
from tests.fakes.waiting import wait_until

Cli = Callable[..., Result]


@pytest.fixture
def ctx(tmp_path: Path) -> Iterator[Context]:
    context = open_home(tmp_path / "home", gateway_port=1)
    two_versions(context)
    yield context
    context.engine.dispose()


@pytest.fixture
def cli(ctx: Context) -> Iterator[Cli]:
    with serving(ctx) as port:
        yield lambda *words: CliRunner().invoke(app, [*words, "--web-port", str(port)])


def document(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def to_baking(ctx: Context) -> None:
    for change in (moves.started, moves.gates_passed, moves.confirmed):
        move(ctx, "digits", lambda rollout, change=change: change(rollout, time.time()))  # type: ignore[misc]


def test_starting_takes_every_option(cli: Cli, ctx: Context) -> None:
    view = document(
        cli(
            "rollout", "start", "digits", "digits@2", "--strategy", "canary", "--steps", "0.1,0.5", "--bake",
            "9", "--min-requests", "7", "--approval", "--no-auto-advance", "--mirror", "0.2", "--guardrail",
            "errors.tolerance=0.01", "--guardrail", "latency.observe_only=true", "--warm", "60", "--json",
        )
    )  # fmt: skip
    assert [(s["weight"], s["mirror"], s["approval"]) for s in view["steps"]] == [
        (0.0, 0.2, True), (0.1, 0.0, True), (0.5, 0.0, True), (1.0, 0.0, False),
    ]  # fmt: skip
    assert {(s["bake_s"], s["min_requests"]) for s in view["steps"]} == {(9.0, 7)}
    assert view["auto_advance"] is False
    plan = rollouts.report_data(ctx, "digits")["plan"]
    by_name = {each["name"]: each for each in plan["guardrails"]}
    assert (by_name["errors"]["tolerance"], by_name["latency"]["observe_only"]) == (0.01, True)
    assert plan["warm_s"] == 60.0


def test_status_for_machines_and_for_people(cli: Cli, ctx: Context) -> None:
    cli("rollout", "start", "digits", "digits@2")
    to_baking(ctx)
    give_verdict(ctx, "digits", "WAIT", "too early to say")
    view = document(cli("rollout", "status", "digits", "--json"))
    assert {name: view[name] for name in ("state", "step", "weight", "verdict", "reason")} == {
        "state": "baking", "step": 1, "weight": 0.05, "verdict": "WAIT", "reason": "too early to say",
    }  # fmt: skip
    told = cli("rollout", "status", "digits").stdout
    assert "digits: digits@1 → digits@2, baking" in told
    assert "verdict WAIT: too early to say" in told
    assert "← now" in told
    assert "can be done now: promote, promote-full, hold, abort, rollback" in told
    for listing in (cli("rollout"), cli("rollout", "list", "--state", "baking")):
        assert "digits@2" in listing.stdout
    assert "No rollouts" in cli("rollout", "list", "--endpoint", "cats").stdout


def test_commands_move_it_and_refusals_have_their_exit_code(cli: Cli, ctx: Context) -> None:
    assert cli("rollout", "hold", "digits").exit_code == 3
    cli("rollout", "start", "digits", "digits@2", "--skip-gates", "checked by hand")
    refused = cli("rollout", "promote", "digits", "--json")
    assert (refused.exit_code, json.loads(refused.stdout)["error"]["code"]) == (4, "conflict")
    rollouts.act(ctx, "digits", "approve", actor="somebody-else")
    to_baking(ctx)
    assert document(cli("rollout", "hold", "digits", "--json"))["state"] == "held"
    assert document(cli("rollout", "resume", "digits", "--json"))["state"] == "baking"
    assert cli("rollout", "promote", "digits").exit_code == 4
    assert document(cli("rollout", "promote", "digits", "--reason", "quiet", "--json"))["step"] == 2
    assert document(cli("rollout", "promote-full", "digits", "--reason", "now", "--json"))["step"] == 6
    back = cli("rollout", "rollback", "digits", "--reason", "no")
    assert "waits until digits@1 answers every request of digits again: no" in back.stdout
    assert cli("rollout", "start", "digits", "digits@2").exit_code == 4
    assert document(cli("rollout", "start", "digits", "digits@2", "--supersede", "--json"))["phase"]
    assert document(cli("rollout", "abort", "digits", "--json"))["phase"] == "rolling_back"


@pytest.mark.parametrize(
    "words",
    [
        ("rollout", "start", "digits", "digits@2", "--steps", "a,b"),
        ("rollout", "start", "digits", "digits@2", "--guardrail", "errors=1"),
        ("rollout", "start", "digits", "digits@2", "--strategy", "rolling"),
        ("rollout", "policy", "digits", "--set", "warm_s"),
        ("rollout", "policy", "digits", "--set", "sticky=body:x"),
        ("rollout", "policy", "digits", "--set", "colour=red"),
        ("rollout", "simulate", "digits"),
        ("freeze", "add", "--from", "soon", "--until", "later", "--reason", "x"),
        ("webhook", "add", "ftp://x"),
    ],
    ids=" ".join,
)
def test_values_that_are_not_usable_are_a_usage_error(cli: Cli, words: tuple[str, ...]) -> None:
    result = cli(*words)
    assert result.exit_code == 2, result.output
    assert "error:" in result.stderr


@pytest.mark.parametrize(("good", "code"), [(True, 0), (False, 1)])
def test_waiting_follows_to_the_end(cli: Cli, ctx: Context, good: bool, code: int) -> None:
    ends: list[Result] = []
    follower = threading.Thread(
        target=lambda: ends.append(cli("rollout", "start", "digits", "digits@2", "--steps", "1.0", "--wait"))
    )
    follower.start()
    wait_until(lambda: rollouts.list_all(ctx).total, timeout_s=20, what=lambda: "the rollout")
    to_baking(ctx)
    if good:
        move(ctx, "digits", lambda rollout: moves.advanced(rollout, time.time()))
    else:
        for change in (
            lambda rollout: moves.rolling_back(rollout, time.time(), reason="too slow", code="latency"),
            lambda rollout: moves.ended(rollout, time.time()),
        ):
            move(ctx, "digits", change)
    follower.join(30)
    assert ends[0].exit_code == code, ends[0].output
    assert ("starting (step 1/1" in ends[0].stderr) == (ends[0].stderr != "")
    assert ("digits@2 is stable now" if good else "rolled back: too slow") in ends[0].output


def test_a_simulation_is_told(cli: Cli) -> None:
    words = ("rollout", "simulate", "--rate", "50", "--error-rate", "0.01", "--p50", "20", "--p95", "60")
    told = cli(*words, "--steps", "0.5", "--bake", "60")
    assert "50 requests/s (given), 1 % errors (given), p50 20 ms (given), p95 60 ms (given)" in told.stdout
    assert "+1 pp errors" in told.stdout
    assert document(cli(*words, "--json"))["prediction"]["steps"]


def test_a_report_as_markdown_and_json(cli: Cli) -> None:
    cli("rollout", "start", "digits", "digits@2")
    assert cli("rollout", "report", "digits").stdout.startswith("# Rollout of digits@2 to digits")
    for words in (("--format", "json"), ("--json",)):
        assert document(cli("rollout", "report", "digits", *words))["timeline"]


def test_a_policy_is_shown_and_changed(cli: Cli) -> None:
    assert "tester_header" in cli("rollout", "policy", "digits").stdout
    changed = ("--set", "tester-header=true", "--set", "sticky=cookie:sid", "--set", "warm_s=60")
    policy = document(cli("rollout", "policy", "digits", *changed, "--json"))
    assert (policy["tester_header"], policy["sticky"], policy["warm_s"]) == (
        True, {"kind": "cookie", "name": "sid"}, 60.0,
    )  # fmt: skip
    assert document(cli("rollout", "policy", "digits", "--set", "sticky=none", "--json"))["sticky"] is None


def test_freeze_windows(cli: Cli) -> None:
    assert "No freeze windows" in cli("freeze").stdout
    added = document(
        cli(
            "freeze", "add", "--from", "2020-01-01T00:00Z", "--until", "2020-01-02", "--reason", "x",
            "--endpoint", "digits", "--weekly", "--json",
        )
    )  # fmt: skip
    assert added["ends_at"] - added["starts_at"] == 24 * 3600
    assert "week" in cli("freeze", "list", "--endpoint", "digits").stdout
    assert document(cli("freeze", "list", "--endpoint", "cats", "--json"))["items"] == []
    assert cli("freeze", "remove", added["id"]).exit_code == 0
    assert cli("freeze", "remove", added["id"]).exit_code == 3


def test_webhooks(cli: Cli) -> None:
    told = cli("webhook", "add", "http://127.0.0.1:1/hook", "--endpoint", "digits").stdout
    assert "whsec_" in told
    (listed,) = document(cli("webhook", "list", "--json"))["items"]
    assert "http://127.0.0.1:1/hook" in cli("webhook").stdout
    assert cli("webhook", "remove", listed["id"]).exit_code == 0
    assert "No webhooks" in cli("webhook").stdout
