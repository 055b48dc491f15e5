"""Deployments files: what is read, what is refused and where, and what would change."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain.deployments import Present, plan
from control_plane.domain.endpoint import EndpointGoal
from control_plane.domain.names import VersionRef
from control_plane.errors import InvalidInputError, SignalboxError, TooLargeError
from control_plane.services.deployments_file import MAX_BYTES, parse

FILE = """\
models:
  digits:
    handler: image-classification
    threads: 1
    memory: 1.5GiB
    aliases:
      champion: 2
deployments:
  - endpoint: digits
    version: digits@champion
    replicas: 2
  - endpoint: old
    version: digits@1
    handler: tensor
    memory: default
    state: stopped
"""


def test_model_settings_fill_what_a_deployment_leaves_open() -> None:
    wanted = parse(FILE)
    first, second = wanted.deployments
    assert first.version == VersionRef("digits", "champion")
    assert (first.wish.replicas, first.wish.handler, first.wish.memory_bytes) == (
        2,
        "image-classification",
        3 << 29,
    )
    assert (second.wish.handler, second.wish.memory_bytes, second.state) == (
        "tensor",
        0,
        EndpointGoal.STOPPED,
    )
    assert second.line == 12
    assert wanted.aliases[0].number == 2


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("deployment:\n  - x\n", (1, 1), "did you mean 'deployments'"),
        (
            "deployments:\n  - endpoint: a\n    version: m@1\n    replica: 2\n",
            (4, 5),
            "did you mean 'replicas'",
        ),
        ("deployments:\n  - endpoint: a\n", (2, 5), "needs 'version'"),
        ("deployments:\n  - endpoint: A\n    version: m@1\n", (2, 15), "not usable"),
        ("deployments:\n  - endpoint: on\n    version: m@1\n", (2, 15), "quotes"),
        ("deployments:\n  - endpoint: a\n    version: m1\n", (3, 14), "does not name a version"),
        ("deployments:\n  - endpoint: a\n    version: m@1\n    replicas: two\n", (4, 15), "whole number"),
        ("deployments:\n  - endpoint: a\n    version: m@1\n    replicas: 65\n", (2, 5), "from 1 to 64"),
        ("deployments:\n  - endpoint: a\n    version: m@1\n    device: tpu\n", (2, 5), "Device 'tpu'"),
        ("deployments:\n  - endpoint: a\n    version: m@1\n    memory: much\n", (4, 13), "memory must be"),
        ("deployments:\n  - endpoint: a\n    version: m@1\n    state: runing\n", (4, 12), "'running'"),
        (
            "deployments:\n  - endpoint: a\n    version: m@1\n  - endpoint: a\n    version: m@2\n",
            (4, 5),
            "line 2",
        ),
        ("models:\n  m:\n    threads: 1\n    threads: 2\n", (4, 5), "twice"),
        ("models:\n  m:\n    aliases:\n      1: 2\n", (4, 10), "reads as a version's number"),
        ("deployments: {a: 1}\n", (1, 14), "must be a list"),
        ("[1, 2]", (1, 1), "must be a mapping"),
        ("a: [1\nb: 2", (2, 2), ""),
        ("deployments:\n\t- x", (2, 1), ""),
    ],
)
def test_faults_are_named_with_line_and_column(text: str, place: tuple[int, int], says: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse(text)
    problem = caught.value.details["problems"][0]
    assert (problem["line"], problem["column"]) == place
    assert says in problem["message"]
    assert f"line {place[0]}, column {place[1]}" in str(caught.value)


def test_all_faults_are_said_at_once() -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse("models:\n  m: {thread: 1}\ndeployments:\n  - {endpoint: a}\n")
    assert len(caught.value.details["problems"]) == 2


def test_empty_files_ask_for_nothing() -> None:
    assert parse("").deployments == ()
    assert parse("models:\n  m: {}\n").deployments == ()


@pytest.mark.parametrize(
    "text", ["[" * 5000, "a: &a [*a]", "? ? ?", "!!python/object:os.system x", "\0", "&"]
)
def test_hostile_text_is_a_fault_like_any_other(text: str) -> None:
    with pytest.raises(InvalidInputError):
        parse(text)


def test_large_files_are_refused_before_they_are_read() -> None:
    with pytest.raises(TooLargeError):
        parse("#" * (MAX_BYTES + 1))


@given(st.text(alphabet="abm@1: -\n{}[]&*!'\"#|>", max_size=80))
def test_no_text_breaks_the_reader(text: str) -> None:
    message = "line "
    try:
        parse(text)
    except SignalboxError as error:
        message = error.message
    assert "line " in message


def test_the_plan_names_only_what_differs() -> None:
    present = Present(
        aliases={("digits", "champion"): 1},
        endpoints={
            "digits": {
                "version": "digits@1",
                "state": "running",
                "replicas": 2,
                "threads": 1,
                "device": "auto",
                "handler": "image-classification",
                "memory_bytes": 3 << 29,
            }
        },
        handlers={"digits@1": "tensor"},
    )
    alias, changed, created = plan(parse(FILE), present)
    assert (alias.kind, alias.before, alias.after) == (
        "alias",
        {"version": "digits@1"},
        {"version": "digits@2"},
    )
    assert (changed.before, changed.after) == ({"version": "digits@1"}, {"version": "digits@2"})
    assert changed.sentence == "change digits: version digits@1 → digits@2"
    assert created.kind == "create"
    assert created.after["state"] == "stopped"


def test_the_plan_is_empty_when_all_is_as_wished() -> None:
    wanted = parse("deployments:\n  - {endpoint: a, version: m@1}\n")
    created = plan(wanted, Present(handlers={"m@1": "tensor"}))[0].after
    assert plan(wanted, Present(endpoints={"a": created})) == ()
