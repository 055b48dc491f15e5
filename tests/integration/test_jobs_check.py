"""The check of an upload from its bytes to `model@1`, and every way it can end otherwise."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import safetensors.torch
import torch
from torch import nn

from control_plane.admission.base import Refusal, Refused
from control_plane.admission.reasons import ReasonCode
from control_plane.config import Settings
from control_plane.domain.views import Reason
from control_plane.jobs import trial
from control_plane.jobs.base import Progress
from control_plane.jobs.kinds import check
from control_plane.registry.artifacts import ArtifactStore
from control_plane.services import jobs, registration, upload_checks, uploads, versions
from control_plane.services.context import Context
from control_plane.services.jobs import ClaimedJob, JobCancelled
from serving_agent.contract.signature import Signature, TensorSpec
from serving_agent.formats import catalog
from tests.fakes import checkpoints, models, nemo_rl_runs, registry

ROW = Signature((TensorSpec("x", "FP32", (-1, 3)),), ())


class Twice(nn.Module):
    """Returns twice its input and each row's sum."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x * 2, x.sum(1)


class Endless(nn.Module):
    """Never answers."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        while bool(x.numel() >= 0):
            x = x + 1
        return x


class Hungry(nn.Module):
    """Takes more and more memory."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        while x.numel() < 1 << 40:
            x = torch.cat([x, x])
        return x


class Angry(nn.Module):
    """Fails on every input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.numel() >= 0:
            raise RuntimeError("boom")
        return x


class Curious(nn.Module):
    """Returns what is no tensor."""

    def forward(self, x: torch.Tensor) -> int:
        return x.numel()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    """A registry whose worker runs, for all tests here that end no worker."""
    ctx = registry.open_home(tmp_path_factory.mktemp("home"))
    with checkpoints.worker(ctx):
        yield ctx
    ctx.engine.dispose()


def script(module: nn.Module, folder: Path) -> Path:
    return models.save_torchscript(module, folder) / "model.pt"


# through the worker


def test_script_asks_and_is_registered_with_what_it_returns(home: Context, tmp_path: Path) -> None:
    waiting = checkpoints.checked(home, checkpoints.send(home, script(Twice(), tmp_path), model="twice"))
    assert (waiting.state, waiting.format, waiting.program) == ("needs input", "torchscript", True)
    assert set(waiting.needs) == {"acceptance", "signature"}
    assert waiting.signature is not None
    assert [spec.name for spec in waiting.signature.inputs] == ["x"]
    job = jobs.get(home, str(waiting.job_id))
    assert job.result == {"outcome": "needs input", "needs": ["acceptance", "signature"]}
    answered = uploads.answer(home, waiting.id, actor="ben", accept_program=True, signature=ROW)
    done = checkpoints.checked(home, answered)
    assert (done.state, done.version_ref) == ("registered", "twice@1")
    version = versions.get(home, "twice@1")
    assert [str(spec) for spec in version.signature.outputs] == ["output_0:FP32[-1,3]", "output_1:FP32[-1]"]
    assert version.program_accepted_by == "ben"
    assert [file.path for file in version.files] == ["model.pt"]


def test_exported_program_is_registered_and_found_again_by_its_digest(home: Context, tmp_path: Path) -> None:
    source = models.save_exported(models.digits_model(), tmp_path, torch.zeros(2, 1, 8, 8))
    refs = []
    for name in ("model.pt2", "renamed.pt2"):
        path = (source / "model.pt2").rename(source / name)
        sent = checkpoints.send(
            home,
            path,
            model="reader",
            accept_program=True,
            handler="image-classification",
            labels="abcdefghij",
        )
        done = checkpoints.checked(home, sent)
        assert done.state == "registered", done.reason
        refs.append(str(done.version_ref))
    first, second = (versions.get(home, ref) for ref in refs)
    assert first.digest == second.digest
    assert str(first.signature.inputs[0]) == "input:FP32[-1,1,8,8]"
    assert str(first.signature.outputs[0]) == "output:FP32[-1,10]"
    assert (first.handler, first.labels) == ("image-classification", tuple("abcdefghij"))


def test_hugging_face_folder_is_registered_without_questions(home: Context, tmp_path: Path) -> None:
    source = models.save_text_classifier(tmp_path)
    done = checkpoints.checked(home, checkpoints.send(home, source, model="reviews", details={"by": "us"}))
    assert done.state == "registered", done.reason
    version = versions.get(home, "reviews@1")
    assert (version.handler, version.labels) == ("text-classification", ("negative", "positive"))
    assert [str(spec) for spec in version.signature.inputs] == ["text:BYTES[-1]"]
    assert version.program_accepted_by is None
    assert version.details == {"by": "us"}


def test_folder_whose_weights_are_another_networks_is_refused(home: Context, tmp_path: Path) -> None:
    source = models.save_text_classifier(tmp_path)
    safetensors.torch.save_file({"x": torch.zeros(2)}, source / "model.safetensors")
    done = checkpoints.checked(home, checkpoints.send(home, source, model="hollow"))
    assert done.reason is not None
    assert (done.state, done.reason.code) == ("rejected", "does-not-load")
    assert "the weights do not fit the network: the file lacks bert." in done.reason.message


def test_language_model_answers_token_ids_with_logits(home: Context, tmp_path: Path) -> None:
    import transformers

    base = nemo_rl_runs.base_model(tmp_path / "base")
    transformers.LlamaForCausalLM.from_pretrained(
        None, config=transformers.AutoConfig.from_pretrained(base.folder), state_dict=base.state
    ).save_pretrained(base.folder)
    done = checkpoints.checked(home, checkpoints.send(home, base.folder, model="policy"))
    assert done.state == "registered", done.reason
    version = versions.get(home, "policy@1")
    assert (version.handler, str(version.signature.outputs[0])) == ("tensor", "logits:BF16[-1,-1,61]")
    stored = ArtifactStore(home.settings.artifacts_dir).folder(version.digest)
    model = catalog.get("huggingface").load(stored, "cpu", version.signature)
    tokens = {"input_ids": torch.tensor([[1, 5, 6]]), "attention_mask": torch.ones(1, 3, dtype=torch.int64)}
    with torch.inference_mode():
        logits = model(tokens)["logits"]
    assert (logits.dtype, tuple(logits.shape)) == (torch.bfloat16, (1, 3, 61))


def test_refused_upload_says_file_reason_and_what_to_do(home: Context, tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "model.pt")
    done = checkpoints.checked(home, checkpoints.send(home, tmp_path / "model.pt"))
    assert done.state == "rejected"
    assert done.reason is not None
    assert (done.reason.code, done.reason.file) == ("full-module-pickle", "model.pt")
    assert "torch.export.save" in str(done.reason.next_step)
    assert jobs.get(home, str(done.job_id)).state == "succeeded"
    assert not uploads.folder(home, done.id).exists()


@pytest.mark.parametrize(
    ("module", "declared", "code", "words"),
    [
        (Curious(), {"signature": ROW}, "unsupported-results", "int"),
        (Twice(), {"signature": ROW, "handler": "embedding"}, "handler-mismatch", "embedding"),
    ],
    ids=["no tensor", "other handler"],
)
def test_program_that_does_not_fit_is_rejected(
    home: Context, tmp_path: Path, module: nn.Module, declared: dict[str, object], code: str, words: str
) -> None:
    sent = checkpoints.send(home, script(module, tmp_path), model="bad", accept_program=True, **declared)
    done = checkpoints.checked(home, sent)
    assert done.state == "rejected"
    assert done.reason is not None
    assert done.reason.code == code
    assert words in done.reason.message
    assert done.reason.next_step


@pytest.mark.parametrize(
    ("module", "signature", "code", "words", "suggested"),
    [
        (Angry(), ROW, "does-not-run", "boom", str(ROW.inputs[0])),
        (
            Twice(),
            Signature((TensorSpec("y", "FP32", (-1, 3)),), ()),
            "signature-mismatch",
            "takes the inputs x; declared are y",
            "x:FP32[-1]",
        ),
        (
            Twice(),
            Signature(ROW.inputs, (TensorSpec("output", "FP32", (-1, 3)),)),
            "signature-mismatch",
            "output_1:FP32[-1]",
            str(ROW.inputs[0]),
        ),
    ],
    ids=["fails", "other inputs", "other outputs"],
)
def test_signature_that_does_not_fit_is_asked_for_again(
    home: Context,
    tmp_path: Path,
    module: nn.Module,
    signature: Signature,
    code: str,
    words: str,
    suggested: str,
) -> None:
    sent = checkpoints.send(
        home, script(module, tmp_path), model="again", accept_program=True, signature=signature
    )
    asked = checkpoints.checked(home, sent)
    assert (asked.state, asked.needs) == ("needs input", ("signature",))
    assert asked.reason is not None
    assert asked.reason.code == code
    assert words in asked.reason.message
    assert asked.signature is not None
    assert [str(spec) for spec in asked.signature.inputs] == [suggested]


def test_files_are_kept_for_a_better_signature(home: Context, tmp_path: Path) -> None:
    wrong = Signature((TensorSpec("y", "FP32", (-1, 3)),), ())
    sent = checkpoints.send(
        home, script(Twice(), tmp_path), model="kept", accept_program=True, signature=wrong
    )
    asked = checkpoints.checked(home, sent)
    answered = uploads.answer(home, asked.id, actor="ben", signature=ROW)
    assert answered.reason is None
    done = checkpoints.checked(home, answered)
    assert (done.state, done.version_ref) == ("registered", "kept@1")


# the check, step by step, killed in between


def claimed(upload_id: str) -> ClaimedJob:
    return ClaimedJob(
        id="0", kind="check", subject="mine", params={"upload_id": upload_id}, attempt=2, created_by="ana"
    )


class Killed(BaseException):
    """Stands for kill -9 at a point of our choice."""


@pytest.mark.parametrize("point", ["store", "try it", "register", "registered"])
def test_check_killed_at_any_point_makes_one_version(
    point: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = registry.open_home(tmp_path / "home")
    sent = checkpoints.send(ctx, script(Twice(), tmp_path), accept_program=True, signature=ROW)

    def killing(stage: str, done: float) -> None:
        if stage == point:
            raise Killed

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        if point == "registered":
            patch.setattr(upload_checks, "registered", killed)
        with pytest.raises(Killed):
            check.KIND.run(ctx, claimed(sent.id), killing)
    result = check.KIND.run(ctx, claimed(sent.id), lambda stage, done: None)
    again = check.KIND.run(ctx, claimed(sent.id), lambda stage, done: None)
    assert result == again == {"outcome": "registered", "version_ref": "mine@1"}
    assert versions.search(ctx, model="mine").total == 1
    ctx.engine.dispose()


def test_failed_check_rejects_its_upload(tmp_path: Path) -> None:
    ctx = registry.open_home(tmp_path / "home")
    sent = checkpoints.send_bytes(ctx, {"model.pt": b"x"})
    reason = Reason("process_died", "its process was killed")
    for _ in range(2):
        check.KIND.ended(ctx, {"upload_id": sent.id}, reason)
    rejected = uploads.get(ctx, sent.id)
    assert rejected.state == "rejected"
    assert rejected.reason is not None
    assert rejected.reason.code == "check-failed"
    ctx.engine.dispose()


def test_upload_cancelled_during_its_check_is_no_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = registry.open_home(tmp_path / "home")
    sent = checkpoints.send(ctx, script(Twice(), tmp_path), accept_program=True, signature=ROW)

    def cancelling(*given: object, **named: object) -> str:
        uploads.cancel(ctx, sent.id, actor="ana")
        return register(*given, **named)  # type: ignore[arg-type]

    register = registration.register
    monkeypatch.setattr(registration, "register", cancelling)
    with pytest.raises(JobCancelled):
        check.KIND.run(ctx, claimed(sent.id), lambda stage, done: None)
    assert versions.search(ctx, model="mine").total == 0
    ctx.engine.dispose()


# trying a program


def order(module: nn.Module, home: Path, **changes: Any) -> trial.Trial:
    """An order to try *module* with the signature ROW."""
    given = {
        "settings": Settings(home=home),
        "format": "torchscript",
        "artifact_dir": script(module, home / "artifact").parent,
        "signature": ROW,
        "memory_bytes": 4 * 1024**3,
    }
    return trial.Trial(**{**given, **changes})


def unheard(_stage: str, _done: float) -> None:
    """Progress that nobody looks at."""


def refused(order: trial.Trial, progress: Progress = unheard) -> Refused:
    """Try a program that must be refused; nothing of it is left running."""
    with pytest.raises(Refusal) as refusal:
        trial.run(order, progress)
    assert not trials()
    return refusal.value.refused


def trials() -> list[psutil.Process]:
    """Processes of ours in which a program is tried."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # those of other fixtures come and go meanwhile
            if "trial_process" in " ".join(process.cmdline()):
                found.append(process)
    return found


def test_endless_program_is_stopped(tmp_path: Path) -> None:
    found = refused(order(Endless(), tmp_path, timeout_s=8))
    assert found.code == ReasonCode.TIMED_OUT
    assert "within 8 s" in found.message


def test_memory_hungry_program_is_stopped_by_its_limit(tmp_path: Path) -> None:
    found = refused(order(Hungry(), tmp_path, memory_bytes=2 * 1024**3))
    assert found.code == ReasonCode.OUT_OF_MEMORY
    assert "2048 MiB" in found.message


def test_file_that_is_no_program_does_not_load(tmp_path: Path) -> None:
    trying = order(Twice(), tmp_path)
    (trying.artifact_dir / "model.pt").write_bytes(b"PK\x03\x04 nothing")
    assert refused(trying).code == ReasonCode.DOES_NOT_LOAD


def test_crashing_program_is_rejected(tmp_path: Path) -> None:
    """A crash inside torch, provoked by a signal: its death is told in words."""

    def crash(_stage: str, _done: float) -> None:
        for process in trials():
            with contextlib.suppress(psutil.NoSuchProcess):  # it has died of the first one
                process.send_signal(signal.SIGSEGV)

    found = refused(order(Endless(), tmp_path), crash)
    assert found.code == ReasonCode.CRASHED
    assert "SIGSEGV" in found.message


def test_cancelled_trial_leaves_no_process(tmp_path: Path) -> None:
    def cancel(_stage: str, _done: float) -> None:
        assert trials()
        raise JobCancelled("x")

    with pytest.raises(JobCancelled):
        trial.run(order(Endless(), tmp_path), cancel)
    assert not trials()


def test_program_sees_no_secret_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNALBOX_DATABASE_URL", f"sqlite:///{tmp_path}/secret.db")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    seen: set[str] = set()

    def look(_stage: str, _done: float) -> None:
        for process in trials():
            seen.update(process.environ())

    refused(order(Endless(), tmp_path, timeout_s=2), look)
    assert "HOME" in seen
    assert not {"AWS_SECRET_ACCESS_KEY", "SIGNALBOX_DATABASE_URL", "SIGNALBOX_HOME"} & seen
