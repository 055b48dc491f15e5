"""The NeMo RL page: what it shows of a run, and that its button queues the conversion."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from control_plane.services import jobs
from control_plane.services.context import Context
from control_plane.ui import current
from tests.fakes import registry
from tests.pages.conftest import OpenPage
from tests.pages.test_pages import words

CONFIG = {
    "grpo": {"max_num_steps": 1},
    "policy": {"model_name": "Qwen/Qwen2.5-1.5B", "precision": "bfloat16"},
    "checkpointing": {"metric_name": "val:accuracy"},
    "logger": {"api_key": "hf_abcdefghijklmnopqrstuv"},
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two steps in form B; their shards are not read before a conversion."""
    folder = tmp_path / "runs" / "grpo"
    for number, accuracy in ((10, 0.25), (20, 0.5)):
        model = folder / f"step_{number}" / "policy" / "weights" / "model"
        (model / ".hf_metadata").mkdir(parents=True)
        (model / ".hf_metadata" / "config.json").write_text("{}")
        (model / "shard-00001-model-00001-of-00001.safetensors").write_bytes(b"x" * 100)
        step = folder / f"step_{number}"
        (step / "policy" / "tokenizer").mkdir()
        (step / "policy" / "tokenizer" / "tokenizer.json").write_text("{}")
        info = {"val:accuracy": accuracy, "loss": float("nan"), "consumed_samples": 640}
        (step / "training_info.json").write_text(json.dumps(info))
        (step / "config.yaml").write_text(yaml.safe_dump({**CONFIG, "grpo": {"max_num_steps": number}}))
    return folder


@pytest.fixture
def rooted(empty: Context, tmp_path: Path, run: Path) -> Context:
    """The same registry, whose settings allow the folder of the run."""
    ctx = registry.open_home(tmp_path / "home", import_roots=(run.parent,))
    current.use(ctx)
    return ctx


def test_without_a_setting_the_page_says_which_one_to_set(empty: Context, open_page: OpenPage) -> None:
    assert "SIGNALBOX_IMPORT_ROOTS" in words(open_page("nemo_rl"))


def test_runs_that_were_found_are_offered(rooted: Context, run: Path, open_page: OpenPage) -> None:
    app = open_page("nemo_rl")
    assert app.selectbox(key="run-found").options == ["grpo"]
    app.selectbox(key="run-found").select(str(run)).run()
    assert app.query_params["run"] == str(run)
    assert "2 steps" in words(app)


def test_a_run_is_shown_with_metrics_steps_and_settings(
    rooted: Context, run: Path, open_page: OpenPage
) -> None:
    app = open_page("nemo_rl", run=str(run))
    said = words(app)
    assert "Qwen/Qwen2.5-1.5B" in said
    assert "best 20 by val:accuracy" in said
    assert "hf_abc" not in said
    table = app.dataframe[0].value
    assert list(table["Step"]) == ["★ 20", "10"]
    assert len(app.get("plotly_chart")) == 1


def test_the_settings_of_two_steps_are_compared(rooted: Context, run: Path, open_page: OpenPage) -> None:
    app = open_page("nemo_rl", run=str(run))
    changes = app.dataframe[1].value
    assert changes.to_dict("records") == [{"Setting": "grpo.max_num_steps", "Before": "10", "After": "20"}]


def test_convert_queues_a_job_and_follows_it(rooted: Context, run: Path, open_page: OpenPage) -> None:
    app = open_page("nemo_rl", run=str(run))
    app.text_input(key="convert-model").set_value("mathematician").run()
    app.button(key="convert-start").click().run()
    (job,) = jobs.search(rooted).items
    assert job.kind == "import-nemo-rl"
    assert "mathematician" in job.subject
    assert app.query_params["job"] == job.id
    assert "Import mathematician" in words(app)
    app.button(key="import-cancel").click().run()
    assert jobs.get(rooted, job.id).state == "cancelled"


def test_a_folder_outside_the_roots_is_refused(rooted: Context, open_page: OpenPage) -> None:
    assert "none of the folders" in words(open_page("nemo_rl", run="/etc"))
