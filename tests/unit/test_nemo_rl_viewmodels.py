"""NeMo RL page: what it says of a run, without drawing."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from control_plane.nemo_rl import preflight
from control_plane.nemo_rl import run as runs
from control_plane.nemo_rl.config_diff import Change
from control_plane.ui.viewmodels import nemo_rl as views

CONFIG = {
    "grpo": {},
    "policy": {"model_name": "m", "precision": "bfloat16", "dtensor_cfg": {"tensor_parallel_size": 2}},
    "data": {"default": {"prompt_file": "cot.txt"}},
    "checkpointing": {"metric_name": "val:accuracy", "keep_top_k": 3},
    "cluster": {"num_nodes": 1, "gpus_per_node": 8},
}


def run_at(folder: Path) -> runs.Run:
    for number, accuracy in ((10, 0.3), (20, 0.5), (30, None)):
        weights = folder / f"step_{number}" / "policy" / "weights"
        weights.mkdir(parents=True)
        (weights / ".metadata").write_bytes(b"x")
        (weights / "__0_0.distcp").write_bytes(b"x" * 2047)
        info = {"consumed_samples": number * 32} | ({} if accuracy is None else {"val:accuracy": accuracy})
        (weights.parents[1] / "training_info.json").write_text(json.dumps(info))
        (weights.parents[1] / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    return runs.scan(folder)


def test_facts_leave_out_what_is_not_known(tmp_path: Path) -> None:
    said = dict(views.facts(run_at(tmp_path).facts))
    assert said["Algorithm"] == "GRPO"
    assert said["Parallelism"] == "tensor 2 · 8 GPUs"
    assert said["Tracked metric"] == "val:accuracy, higher is better"
    assert "Longest sequence" not in said


def test_the_best_step_has_a_star_and_gaps_have_a_dash(tmp_path: Path) -> None:
    rows = views.step_rows(run_at(tmp_path))
    assert [row["Step"] for row in rows] == ["30", "★ 20", "10"]
    assert [row["val:accuracy"] for row in rows] == ["–", "0.5", "0.3"]
    assert rows[0]["Samples"] == "960"
    assert rows[0]["Weights"] == "2 KiB"
    assert rows[0]["Why"] == "needs the base model"


def test_a_figure_keeps_gaps_and_marks_the_best(tmp_path: Path) -> None:
    run = run_at(tmp_path)
    figure = views.figure(run, "val:accuracy")
    line, star = figure["data"]
    assert (line["x"], line["y"], line["connectgaps"]) == ([10, 20, 30], [0.3, 0.5, None], False)
    assert (star["x"], star["y"], star["marker"]["symbol"]) == ([20], [0.5], "star")
    assert views.missing_words(run, "val:accuracy") == "1 of 3 steps have no value"
    assert views.run_words(run) == "3 steps · best 20 by val:accuracy"
    assert views.default_step(run) == 20


def test_changes_say_which_side_lacks_a_setting() -> None:
    assert views.change_rows([Change("a.b", None, "1")]) == [{"Setting": "a.b", "Before": "–", "After": "1"}]


def test_preflight_names_everything_that_is_missing(tmp_path: Path) -> None:
    run = run_at(tmp_path)
    seen = preflight.look(
        run, run.steps[0], base=None, base_tokenizer=False, own_tokenizer=False, dtype=None, free_bytes=10
    )
    assert not seen.ready
    assert [word in " ".join(seen.problems) for word in ("config.json", "tokenizer", "room")] == [True] * 3
    assert (seen.output_bytes, seen.casts) == (1024, True)
    assert any("cot.txt" in note for note in seen.notes)
    assert dict(views.preflight_rows(seen))["Element type"] == "float32 is written as bfloat16"


def test_preflight_is_ready_with_base_and_tokenizer(tmp_path: Path) -> None:
    run = run_at(tmp_path)
    seen = preflight.look(
        run,
        run.steps[0],
        base={"model_type": "llama"},
        base_tokenizer=False,
        own_tokenizer=True,
        dtype="keep",
        free_bytes=10_000,
    )
    assert (seen.ready, seen.problems, seen.output_bytes) == (True, (), 2048)
