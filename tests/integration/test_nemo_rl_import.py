"""A NeMo RL run through the product: found, read over REST, converted by the worker, registered, served."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
import transformers

from control_plane.admission import gate
from control_plane.admission.base import Accepted
from control_plane.errors import InvalidInputError, RefusedError
from control_plane.jobs.kinds import import_nemo_rl
from control_plane.services import jobs, nemo_rl, versions
from control_plane.services.context import Context
from control_plane.services.jobs import ClaimedJob, JobCancelled
from control_plane.services.nemo_rl import Wanted
from serving_agent.formats.huggingface import FORMAT as HUGGING_FACE
from serving_agent.handlers.score import HANDLER as SCORE
from serving_agent.model_server import ModelContext
from tests.fakes import checkpoints, registry
from tests.fakes import nemo_rl_runs as fakes
from tests.fakes.api_server import serving
from tests.fakes.nemo_rl_runs import Base
from tests.fakes.waiting import wait_until


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """A tiny Llama."""
    return fakes.base_model(tmp_path_factory.mktemp("runs") / "base")


@pytest.fixture(scope="module")
def run(base: Base) -> Path:
    """A run of two steps in form B, one of them changed."""
    folder = base.folder.parent / "results" / "Grpo Math"
    for number, accuracy in ((10, 0.3), (20, 0.5)):
        config = fakes.settings()
        config["grpo"]["max_num_steps"] = number
        step = fakes.write_step(
            folder, number, config=config, tokenizer=base.folder, **{"val:accuracy": accuracy}
        )
        fakes.save_form_b(step, base.state, base.config)
    return folder


@pytest.fixture
def ctx(base: Base, tmp_path: Path) -> Iterator[Context]:
    context = registry.open_home(tmp_path / "home", import_roots=(base.folder.parent,))
    yield context
    context.engine.dispose()


def claimed(ctx: Context, wanted: Wanted, model: str | None = None) -> ClaimedJob:
    """A queued job, claimed by this process."""
    nemo_rl.start(ctx, wanted, model=model, actor="ana")
    job = jobs.claim(ctx, 1, 1.0)
    assert job is not None
    return job


def quiet(stage: str, done: float) -> None:
    """Progress that nobody watches."""


def test_runs_below_the_roots_are_found(ctx: Context, run: Path) -> None:
    assert [(found.path, found.name) for found in nemo_rl.found(ctx)] == [(str(run), "results/Grpo Math")]
    assert nemo_rl.model_name("Grpo Math") == "grpo-math"


def test_folders_outside_the_roots_are_not_read(ctx: Context, run: Path, tmp_path: Path) -> None:
    outside = tmp_path / "elsewhere"
    shutil.copytree(run / "step_10", outside / "step_10")
    for folder in (str(outside), "relative", "file:///etc", str(run / ".." / ".." / ".."), "/\0"):
        with pytest.raises(InvalidInputError):
            nemo_rl.read(ctx, folder)
    (run.parent / "link").symlink_to(outside)
    with pytest.raises(InvalidInputError, match="none of the folders"):
        nemo_rl.read(ctx, str(run.parent / "link"))
    (run.parent / "link").unlink()


def test_a_step_becomes_a_version_with_its_lineage(
    ctx: Context, run: Path, base: Base, tmp_path: Path
) -> None:
    job = claimed(ctx, Wanted(folder=str(run), step=20))
    result = import_nemo_rl.KIND.run(ctx, job, quiet)
    version = versions.get(ctx, "grpo-math@1")
    assert result["version_ref"] == version.ref
    assert (version.format, version.handler) == ("huggingface", "tensor")
    assert version.verdict == {"decision": "accept", "code": "plain-weights", "left_out": []}
    assert version.lineage["step"] == 20
    assert version.lineage["training_info"]["val:accuracy"] == 0.5
    assert version.details["val:accuracy"] == 0.5
    assert "language-model endpoints" in version.details["serving"]
    digests = {file.path: file.sha256 for file in version.files}
    assert {name: digests[name] for name in version.lineage["shards_sha256"]} == version.lineage[
        "shards_sha256"
    ]
    assert not (ctx.settings.root / "imports" / job.id).exists()
    assert import_nemo_rl.KIND.run(ctx, job, quiet) == {"version_ref": "grpo-math@1"}
    assert versions.search(ctx).total == 1
    loaded = HUGGING_FACE.load(_folder(ctx, version.digest), "cpu", version.signature)
    tokens = torch.tensor([[1, 5, 6]])
    with torch.inference_mode():
        logits = loaded({"input_ids": tokens, "attention_mask": torch.ones_like(tokens)})["logits"]
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig.from_pretrained(base.folder))
        model.load_state_dict(base.state)
        model.bfloat16().save_pretrained(tmp_path / "theirs")
        theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "theirs", dtype="auto")
        expected = theirs(tokens).logits
    assert torch.equal(logits, expected)
    assert [str(spec) for spec in version.signature.outputs] == ["logits:BF16[-1,-1,61]"]


def test_a_reward_model_gives_a_score_for_a_text(ctx: Context, base: Base) -> None:
    reward = fakes.base_model(base.folder.parent / "reward-base", reward=True)
    folder = base.folder.parent / "rm"
    step = fakes.write_step(folder, 5, config=fakes.settings("rm"), tokenizer=reward.folder)
    fakes.save_form_a(step, reward.state)
    job = claimed(ctx, Wanted(folder=str(folder), base=str(reward.folder), dtype="keep"), "judge")
    version = versions.get(ctx, import_nemo_rl.KIND.run(ctx, job, quiet)["version_ref"])
    assert version.handler == "score"
    handler = SCORE()
    handler.load_model(
        ModelContext(
            artifact_dir=_folder(ctx, version.digest),
            format=HUGGING_FACE,
            signature=version.signature,
            model_signature=version.signature,
            labels=(),
            device="cpu",
        )
    )
    texts = np.array([b"w5 w6 w7", b"w9"], dtype=object)
    with torch.inference_mode():
        scores = handler.postprocess(handler.predict(handler.preprocess({"text": texts})))["score"]
    assert scores.shape == (2,)
    assert np.isfinite(scores).all()
    assert scores[0] != scores[1]
    shutil.rmtree(folder)


def test_what_is_missing_is_said_before_a_job_is_queued(ctx: Context, base: Base) -> None:
    folder = base.folder.parent / "dpo"
    fakes.save_form_a(fakes.write_step(folder, 5, config=fakes.settings("dpo")), base.state)
    with pytest.raises(RefusedError, match=r"config\.json.*tokenizer"):
        nemo_rl.start(ctx, Wanted(folder=str(folder)), model=None, actor="ana")
    assert jobs.search(ctx).total == 0
    seen = nemo_rl.look(ctx, Wanted(folder=str(folder), base=str(base.folder), base_tokenizer=True))
    assert (seen.ready, seen.problems) == (True, ())
    shutil.rmtree(folder)


def test_a_cancelled_job_goes_on_when_it_is_retried(
    ctx: Context, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_nemo_rl, "SHARD_BYTES", 8 * 1024)
    job = claimed(ctx, Wanted(folder=str(run), step=10), "again")
    work = ctx.settings.root / "imports" / job.id

    def cancel(stage: str, done: float) -> None:
        if stage == "convert" and len(list((work / "model").glob("*.safetensors"))) > 2:
            raise JobCancelled(job.id)

    with pytest.raises(JobCancelled):
        import_nemo_rl.KIND.run(ctx, job, cancel)
    import_nemo_rl.KIND.ended(ctx, job.params, None)
    result = import_nemo_rl.KIND.run(ctx, job, quiet)
    assert versions.get(ctx, result["version_ref"]).lineage["shards_reused"] >= 1


def test_rest_and_command_line_import_through_the_worker(ctx: Context, run: Path) -> None:
    with checkpoints.worker(ctx), serving(ctx) as port:
        url = f"http://127.0.0.1:{port}/api/v1"
        with httpx.Client(base_url=url, trust_env=False, headers={"x-signalbox-actor": "ana"}) as api:
            assert [found["name"] for found in api.get("/nemo-rl/runs").json()] == ["results/Grpo Math"]
            seen = api.get("/nemo-rl/run", params={"folder": str(run)}).json()
            assert (seen["best"], seen["series"]["val:accuracy"]) == (20, [0.3, 0.5])
            changes = api.get("/nemo-rl/changes", params={"folder": str(run), "before": 10, "after": 20})
            assert [change["key"] for change in changes.json()] == ["grpo.max_num_steps"]
            assert "hf_abc" not in changes.text
            body: dict[str, Any] = {"folder": str(run), "step": 10}
            assert api.post("/nemo-rl/preflight", json=body).json()["ready"]
            assert api.get("/nemo-rl/run", params={"folder": "/etc"}).status_code == 400
            job = api.post("/nemo-rl/imports", json={**body, "model": "over-rest"})
            assert job.status_code == 201, job.text

            def ended() -> dict[str, Any] | None:
                view: dict[str, Any] = api.get(f"/jobs/{job.json()['id']}").json()
                return view if view["state"] in {"succeeded", "failed"} else None

            done = wait_until(ended, timeout_s=120, what=lambda: api.get("/jobs").text)
            assert done["state"] == "succeeded", done
            assert done["result"]["version_ref"] == "over-rest@1"
        command = [
            sys.executable,
            "-m",
            "control_plane",
            "--json",
            "--web-port",
            str(port),
            "import",
            "nemo-rl",
        ]
        said = subprocess.run(
            [*command, str(run), "--dtype", "keep", "--wait"], capture_output=True, text=True
        )
        assert said.returncode == 0, said.stderr
        assert json.loads(said.stdout)["lineage"]["step"] == 20


def test_the_gate_takes_steps_and_distributed_checkpoints_as_bare_weights(
    run: Path, base: Base, tmp_path: Path
) -> None:
    sharded = gate.judge(run / "step_10")
    assert isinstance(sharded, Accepted)
    fakes.save_form_a(fakes.write_step(tmp_path, 5), base.state)
    distributed = gate.judge(tmp_path / "step_5")
    assert isinstance(distributed, Accepted)
    for verdict in (sharded, distributed):
        assert (verdict.decision, verdict.format, verdict.needs) == (
            "convert",
            "state_dict",
            ("architecture",),
        )
        assert {tensor.name for tensor in verdict.weights[0].tensors} == set(base.state)
        left = {each.path: each.why for each in verdict.left_out}
        assert left["policy/optimizer/optim/.metadata"] == "optimiser state"
        assert left["train_dataloader.pt"] == "resume state"


def _folder(ctx: Context, digest: str) -> Path:
    digest = digest.removeprefix("sha256:")
    return ctx.settings.artifacts_dir / "sha256" / digest[:2] / digest
