"""The command line against a running Signalbox: one document, stable exit codes, clear refusals."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.stack import Stack, free_ports

pytestmark = pytest.mark.timeout(300)

READING = (("status",), ("models",), ("versions",), ("jobs",), ("events",), ("export",))


@pytest.mark.parametrize("command", READING, ids=lambda c: c[0])
def test_json_is_one_document_and_nothing_else(stack: Stack, command: tuple[str, ...]) -> None:
    done = stack.cli(*command, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert isinstance(json.loads(done.stdout), dict)


@pytest.mark.parametrize("command", READING, ids=lambda c: c[0])
def test_people_get_text(stack: Stack, command: tuple[str, ...]) -> None:
    done = stack.cli(*command)
    assert done.returncode == 0
    assert done.stdout.strip()
    assert not done.stdout.lstrip().startswith("{")


def test_common_options_stand_before_a_command_too(stack: Stack) -> None:
    assert json.loads(stack.cli("--json", "status").stdout)["controller"] == "leading"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("deploy", "x", "nothing@1"), 3, "nothing@1"),
        (("deploy", "Not_A_Label", "nothing@1"), 2, "endpoint name"),
        (("deploy", "x", "nothing@1", "--memory", "plenty"), 2, "not a size"),
        (("deploy", "x", "nothing@1", "--batch-buckets", "1;2"), 2, "no list of numbers"),
        (("deploy", "x", "nothing@1", "--max-batch-rows", "9999"), 2, "options.batching.max_rows"),
        (("deploy", "x", "nothing@1", "--check-interval-s", "0.1"), 2, "must be 0, or from 1 to"),
        (("logs", "nobody"), 3, ""),
        (("scale", "nobody", "2"), 3, "nobody"),
        (("logs", "nobody", "--follow", "--json"), 2, "--follow"),
        (("apply", "-f", "missing.yaml"), 2, "missing.yaml"),
        (("push", "missing.pt", "--model", "m"), 2, "missing.pt"),
        (("predict", "nobody", "--input", "missing.json"), 2, "missing.json"),
        (("no-such-command",), 2, "no-such-command"),
    ],
)
def test_what_goes_wrong_has_its_exit_code_and_sentence(
    stack: Stack, arguments: tuple[str, ...], code: int, said: str
) -> None:
    done = stack.cli(*arguments)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_endpoint_is_not_found_at_the_gateway(stack: Stack) -> None:
    done = stack.cli("predict", "nobody", "--input", "-", "--json", stdin="[1]")
    assert done.returncode == 3
    assert json.loads(done.stdout)["error"]["code"] == "not_found"


def test_no_server_is_its_own_exit_code(stack: Stack) -> None:
    (port,) = free_ports(1)
    done = stack.cli("status", "--web-port", str(port), "--json")
    assert done.returncode == 5
    assert "signalbox up" in json.loads(done.stdout)["error"]["next_step"]


def test_a_pickle_is_refused_with_file_reason_and_what_to_do(stack: Stack, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(pickle.dumps({"w": [1, 2]}))
    done = stack.cli("push", str(path), "--model", "pickled", "--json")
    error = json.loads(done.stdout)["error"]
    assert done.returncode == 4, done.stderr
    assert error["details"]["file"] == "weights.pt"
    assert error["details"]["reason"]
    assert error["next_step"]


def test_a_program_is_not_run_without_acceptance(
    stack: Stack, digits: list[dict[str, Any]], tmp_path: Path
) -> None:
    found = next(stack.settings.artifacts_dir.rglob("*.pt2"))
    path = tmp_path / "again.pt2"
    path.write_bytes(found.read_bytes())
    done = stack.cli("push", str(path), "--model", "unaccepted")
    assert done.returncode == 4
    assert "--accept-program" in done.stderr
    assert stack.api.get("/models/unaccepted").status_code == 404


def test_deploying_prints_where_the_time_went(stack: Stack, digits: list[dict[str, Any]]) -> None:
    done = stack.cli("deploy", "timed", "digits@1", "--replicas", "1")
    assert done.returncode == 0, done.stderr
    assert all(stage in done.stdout for stage in ("start", "import", "load", "warm", "gateway"))
    assert ": ready" in done.stderr
    assert "digits@1 on cpu" in stack.cli("logs", "timed").stdout
    assert stack.cli("delete", "timed").returncode == 0


def test_a_failing_start_says_why_with_the_last_lines(stack: Stack, digits: list[dict[str, Any]]) -> None:
    done = stack.cli("deploy", "starved", "digits@1", "--memory", "64MiB", "--json")
    error = json.loads(done.stdout)["error"]
    try:
        assert done.returncode == 1, done.stderr
        assert "memory" in error["details"]["reason"]
        assert error["details"]["log_tail"]
    finally:
        stack.cli("delete", "starved")


def test_a_deployments_file_is_applied_once(
    stack: Stack, digits: list[dict[str, Any]], tmp_path: Path
) -> None:
    file = tmp_path / "deployments.yaml"
    file.write_text("deployments:\n  - endpoint: declared\n    version: digits@1\n    state: stopped\n")
    would = json.loads(stack.cli("apply", "-f", str(file), "--dry-run", "--json").stdout)
    assert (len(would["changes"]), would["applied"]) == (1, False)
    did = json.loads(stack.cli("apply", "-f", str(file), "--json").stdout)
    assert len(did["changes"]) == 1
    assert "nothing to change" in stack.cli("apply", "-f", str(file)).stdout
    stack.cli("delete", "declared")
