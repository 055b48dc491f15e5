"""`signalbox versions …` and the REST routes behind it, with the API really serving and jobs really done."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import save_file

from control_plane.jobs import run
from control_plane.services import comparison, jobs, registration, versions
from control_plane.services.context import Context
from tests.fakes import models
from tests.fakes.api_server import serving
from tests.fakes.registry import open_home, register


@contextmanager
def working(ctx: Context) -> Iterator[None]:
    """A thread that does what is queued, as the worker's processes would."""
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            claimed = jobs.claim(ctx, 1, 1.0)
            if claimed is None:
                over.wait(0.02)
            else:
                run.perform(ctx, claimed)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(60)


@pytest.fixture(scope="module")
def ctx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    """Two versions of `llm` whose tensor `w` differs by 0.5, and one of `digits`."""
    home = tmp_path_factory.mktemp("cli")
    made = open_home(home / "home")
    for number in range(2):
        folder = home / str(number)
        folder.mkdir()
        save_file({"w": np.full((2, 2), number / 2, np.float32)}, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({"hidden": number}))
        registration.register(
            made, model="llm", files_dir=folder, format="huggingface", handler="tensor",
            signature=models.SCALAR, actor="ana",
        )  # fmt: skip
    register(made)
    with working(made):
        yield made
    made.engine.dispose()


@pytest.fixture(scope="module")
def port(ctx: Context) -> Iterator[int]:
    with serving(ctx) as number:
        yield number


def signalbox(port: int, *words: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "control_plane", "versions", *words, "--web-port", str(port)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout


def test_the_list_is_what_it_was(port: int) -> None:
    code, said = signalbox(port, "--model", "llm", "--json")
    assert (code, [each["ref"] for each in json.loads(said)["items"]]) == (0, ["llm@2", "llm@1"])


def test_compare_waits_for_the_weights(port: int) -> None:
    code, said = signalbox(port, "compare", "llm@1", "llm@2")
    assert code == 0, said
    for row in ("config.json: hidden", "file model.safetensors", "Tensors compared: 1", "1 changed", "0.5"):
        assert row in said, row
    code, said = signalbox(port, "compare", "llm@2", "llm@1", "--json")
    found = json.loads(said)
    assert (found["weights"]["state"], found["weights"]["max_difference"]) == ("ready", 0.5)
    (tensor,) = found["weights"]["compared"]["tensors"]
    assert (tensor["name"], tensor["a"]["norm"], tensor["b"]["norm"]) == ("w", 1.0, 0.0)


def test_compare_of_programs_starts_no_job(port: int) -> None:
    code, said = signalbox(port, "compare", "digits@1", "digits@1")
    assert code == 0
    assert "compared by metadata and files only" in said


def test_verify_ends_with_1_where_something_was_changed(ctx: Context, port: int) -> None:
    code, said = signalbox(port, "verify", "llm@2", "--json")
    assert (code, json.loads(said)["problems"]) == (0, [])
    register(ctx, "broken", content=b"as it was")
    folder, _ = comparison.stored(ctx, versions.get(ctx, "broken@1").digest)
    (folder / "model.bin").unlink()
    (folder / "model.bin").write_bytes(b"as it is!")
    code, said = signalbox(port, "verify", "broken@1", "--json")
    error = json.loads(said)["error"]
    assert code == 1
    assert "broken@1 is not what was signed: model.bin holds other bytes" in error["message"]


@pytest.mark.parametrize(("words", "code"), [(("verify", "llm"), 2), (("verify", "llm@9"), 3)])
def test_wrong_names_have_their_exit_codes(port: int, words: tuple[str, ...], code: int) -> None:
    assert signalbox(port, *words)[0] == code


def test_rejudge_tells_the_decisions(port: int) -> None:
    code, said = signalbox(port, "rejudge", "digits@1", "--json")
    assert (code, json.loads(said)) == (0, {"versions": 1, "refuse": 1})
    code, said = signalbox(port, "rejudge", "--all")
    assert code == 0
    assert "Versions judged" in said
    assert signalbox(port, "rejudge", "digits@1", "--all")[0] == 2


def test_routes_give_lineage_and_the_signed_manifest(ctx: Context, port: int) -> None:
    register(ctx, "child", parent_ref="llm@1")
    with httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1") as api:
        tree: dict[str, Any] = api.get("/models/child/versions/1/lineage").json()
        nodes = [(node["ref"], node["focus"]) for node in tree["nodes"]]
        assert nodes == [("llm@1", False), ("child@1", True)]
        detail = api.get("/models/child/versions/1").json()
        assert detail["manifest"]["payloadType"] == "application/vnd.in-toto+json"
        assert "manifest" not in api.get("/versions").json()["items"][0]
        assert api.get("/versions/compare", params={"a": "llm@1"}).status_code == 400
        assert api.get("/versions/compare", params={"a": "llm@1", "b": "x@1"}).status_code == 404


def test_files_of_a_home_stay_private(ctx: Context) -> None:
    folder: Path = ctx.settings.keys_dir
    assert folder.stat().st_mode & 0o077 == 0
