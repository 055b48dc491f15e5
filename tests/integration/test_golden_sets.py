"""Golden sets through services, REST and the command line."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from control_plane.config import Settings
from control_plane.domain.golden import items_of
from control_plane.errors import InvalidInputError, NotFoundError
from control_plane.services import events, golden_sets
from control_plane.services.context import Context
from serving_agent.contract.signature import Signature, TensorSpec
from tests.fakes.api_server import serving
from tests.fakes.registry import SIGNATURE, open_home, register

LABELS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def item(value: float, label: str = "one") -> dict[str, Any]:
    return {"inputs": {"image": [[[value] * 8] * 8]}, "label": label}


@pytest.fixture
def ctx(tmp_path: Path) -> Iterator[Context]:
    context = open_home(tmp_path / "home")
    register(context, labels=LABELS)
    yield context
    context.engine.dispose()


@pytest.fixture
def api(ctx: Context) -> Iterator[httpx.Client]:
    with (
        serving(ctx) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", trust_env=False) as client,
    ):
        yield client


def test_same_content_is_kept_once_and_never_changed(ctx: Context) -> None:
    first = golden_sets.add(ctx, "digits", items_of([item(0.5)]), name="first", actor="ana")
    again = golden_sets.add(ctx, "digits", items_of([item(0.5)]), name="again", actor="ben")
    other = golden_sets.add(ctx, "digits", items_of([item(0.25)]), actor="ben")
    assert again == first
    assert (first.items, first.labelled, first.with_outputs, first.created_by) == (1, 1, 0, "ana")
    assert other.name == other.digest.removeprefix("sha256:")[:12]
    assert [kept.digest for kept in golden_sets.search(ctx, model="digits").items] == [
        other.digest, first.digest,
    ]  # fmt: skip
    assert golden_sets.search(ctx, model="others").total == 0
    assert golden_sets.get(ctx, "digits", first.digest.removeprefix("sha256:")[:10]) == first
    assert [event.action for event in events.search(ctx, subject="model/digits").items] == [
        "golden_set.added"
    ] * 2


def test_many_at_once_make_one(ctx: Context) -> None:
    digests: list[str] = []

    def add() -> None:
        digests.append(golden_sets.add(ctx, "digits", items_of([item(0.5)]), actor="ana").digest)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(digests) == 4
    assert golden_sets.search(ctx).total == 1


def test_what_does_not_fit_the_model_is_refused(ctx: Context) -> None:
    with pytest.raises(InvalidInputError, match="item 2: 'ten' is no class of the model"):
        golden_sets.add(ctx, "digits", items_of([item(0.5), item(0.5, "ten")]), actor="ana")
    with pytest.raises(NotFoundError):
        golden_sets.add(ctx, "letters", items_of([item(0.5)]), actor="ana")
    with pytest.raises(InvalidInputError, match="name"):
        golden_sets.add(ctx, "digits", items_of([item(0.5)]), name="a\nb", actor="ana")
    with pytest.raises(NotFoundError, match="no golden set beefbeef"):
        golden_sets.get(ctx, "digits", "beefbeef")
    with pytest.raises(InvalidInputError, match="at least 4"):
        golden_sets.get(ctx, "digits", "be")
    assert golden_sets.search(ctx).total == 0


def test_items_may_fit_an_older_version(ctx: Context) -> None:
    wide = Signature(SIGNATURE.inputs, (TensorSpec("logits", "FP32", (-1, 12)),))
    register(ctx, signature=wide)
    references = {"inputs": item(0.5)["inputs"], "outputs": {"logits": [0.5] * 10}}
    assert golden_sets.add(ctx, "digits", items_of([references]), actor="ana").with_outputs == 1
    bad = items_of([{**references, "outputs": {"logits": [0.5] * 11}}])
    with pytest.raises(InvalidInputError, match=r"must have shape \[-1, 12\], not \[1, 11\]"):
        golden_sets.add(ctx, "digits", bad, actor="ana")


def test_a_set_of_megabytes_comes_over_rest_and_is_read_in_pages(api: httpx.Client) -> None:
    items = [item(n / 7001, LABELS[n % 10]) for n in range(5000)]
    body = {"items": items, "name": "large"}
    assert len(json.dumps(body)) > 2 * 1024**2
    added = api.post("/models/digits/golden-sets", json=body, timeout=60)
    assert added.status_code == 201, added.text
    digest = added.json()["digest"]
    page = api.get(f"/models/digits/golden-sets/{digest}/items", params={"page": 2, "page_size": 3}).json()
    assert (page["total"], page["items"]) == (5000, [{**each, "outputs": None} for each in items[3:6]])
    assert api.get("/golden-sets", params={"model": "digits"}).json()["items"] == [added.json()]
    assert api.get(f"/models/digits/golden-sets/{digest}").json() == added.json()


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"items": []}, 400, "items"),
        ({"items": [{"inputs": {}}]}, 400, "missing input 'image'"),
        ({"items": [{"lable": "x"}]}, 400, "lable"),
        ({"items": [item(1, "one")] * 10_001}, 413, "64 MiB|10000|larger"),
    ],
)
def test_bad_bodies_are_refused(api: httpx.Client, body: dict[str, Any], status: int, words: str) -> None:
    answer = api.post("/models/digits/golden-sets", json=body)
    assert answer.status_code in (status, 400)
    assert answer.json()["error"]["message"]


def cli(port: int, ctx: Context, *arguments: str) -> subprocess.CompletedProcess[str]:
    settings = Settings(home=ctx.settings.home, web_port=port)
    return subprocess.run(
        [sys.executable, "-m", "control_plane", "golden", *arguments],
        env=settings.child_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_command_line_adds_lists_and_shows(ctx: Context, tmp_path: Path) -> None:
    path = tmp_path / "held-out.jsonl"
    path.write_text("\n".join(json.dumps(item(n / 10)) for n in range(7)))
    with serving(ctx) as port:
        added = cli(port, ctx, "add", "digits", str(path), "--json")
        assert added.returncode == 0, added.stderr
        kept = json.loads(added.stdout)
        assert (kept["name"], kept["items"]) == ("held-out", 7)
        listed = cli(port, ctx, "list", "digits")
        assert kept["digest"][7:19] in listed.stdout
        assert cli(port, ctx).stdout == listed.stdout
        shown = cli(port, ctx, "show", "digits", kept["digest"][:16])
        assert "7 items, 7 labelled, 0 with outputs" in shown.stdout
        path.write_text('{"inputs": {"image": [[0]]}, "label": "one"}')
        refused = cli(port, ctx, "add", "digits", str(path))
        assert refused.returncode != 0
        assert "item 1: input 'image' must have shape" in refused.stderr
