"""Reading a NeMo RL run: forms by files, metrics with gaps, settings as data, and what hostile files do."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from control_plane.errors import ConflictError, InvalidInputError, NotFoundError
from control_plane.nemo_rl import config_diff, documents, facts, forms, listing, metrics
from control_plane.nemo_rl import run as runs

W = "policy/weights/"
DCP = {W + ".metadata": 10, W + "__0_0.distcp": 100}
SHARDS = {W + "model/shard-00001-model-00001-of-00001.safetensors": 90}
SETTINGS: dict[str, Any] = {
    "grpo": {"adv_estimator": {"name": "grpo"}},
    "policy": {
        "model_name": "Qwen/Qwen2.5-1.5B",
        "precision": "bfloat16",
        "max_total_sequence_length": 512,
        "dtensor_cfg": {"_v2": True, "tensor_parallel_size": 2, "context_parallel_size": 1},
        "generation": {"temperature": 0.7, "top_k": None},
    },
    "data": {"train": {"dataset_name": "math"}, "default": {"prompt_file": "cot.txt"}},
    "checkpointing": {"metric_name": "val:accuracy", "higher_is_better": True},
    "cluster": {"num_nodes": 2, "gpus_per_node": 8},
}


def step(run: Path, number: int, **info: Any) -> Path:
    folder = run / f"step_{number}"
    (folder / "policy" / "weights").mkdir(parents=True)
    (folder / W / ".metadata").write_bytes(b"x" * 10)
    (folder / W / "__0_0.distcp").write_bytes(b"x" * 90)
    (folder / "train_dataloader.pt").write_bytes(b"x" * 7)
    (folder / "training_info.json").write_text(json.dumps({"step": 1, **info}))
    (folder / "config.yaml").write_text(yaml.safe_dump(SETTINGS))
    return folder


# forms


@pytest.mark.parametrize(
    ("files", "letter"),
    [
        (DCP, "A"),
        (SHARDS, "B"),
        ({W + "model/.metadata": 1, W + "model/__0_0.distcp": 9}, "C"),
        ({W + "model/consolidated/model.safetensors": 9, W + "model/consolidated/config.json": 1}, "D"),
        ({W + "model/adapter_model.safetensors": 9, W + "model/adapter_config.json": 1}, "E"),
        ({W + "iter_0000000/.metadata": 1, W + "iter_0000000/__0_0.distcp": 9, W + "latest_x": 1}, "F"),
        ({".metadata": 1, "__0_0.distcp": 9}, "A"),
        ({**SHARDS, W + "model/consolidated/model.safetensors": 9}, "D"),
    ],
)
def test_form_is_known_by_the_files_alone(files: dict[str, int], letter: str) -> None:
    found = forms.detect({**files, "policy/optimizer/optim/.metadata": 5, "replay_buffer.pt": 6})
    assert found.letter == letter
    assert found.weight_bytes + found.skipped_bytes == sum(files.values()) + 11
    assert found.convertible == (letter != "E")
    assert not any("optimizer" in path or path.endswith(".pt") for path in found.weights)


def test_an_unknown_layout_says_what_was_found() -> None:
    found = forms.detect({"notes.txt": 1})
    assert (found.letter, found.convertible) == (None, False)
    assert "notes.txt" in found.reason


def test_an_ambiguous_layout_names_both_forms() -> None:
    found = forms.detect({**DCP, **SHARDS})
    assert not found.convertible
    assert forms.TITLES["A"] in found.reason
    assert forms.TITLES["B"] in found.reason


@pytest.mark.parametrize("left", ["__0_0.distcp", ".metadata"])
def test_a_save_that_was_cut_short_is_not_convertible(left: str) -> None:
    found = forms.detect({W + left: 1})
    assert (found.letter, found.convertible) == ("A", False)
    assert "cut short" in found.reason


def test_value_network_and_optimiser_of_ppo_are_passed_over() -> None:
    found = forms.detect({**DCP, "value/weights/.metadata": 3, "value/weights/__0_0.distcp": 4})
    assert found.letter == "A"
    assert found.skipped_bytes == 7


@given(st.dictionaries(st.text(max_size=40), st.integers(0, 1 << 50), max_size=20))
def test_any_listing_has_a_form_or_a_reason(files: dict[str, int]) -> None:
    found = forms.detect(files)
    assert found.convertible != bool(found.reason)
    assert found.weight_bytes + found.skipped_bytes == sum(files.values())


# metrics


def test_sentinel_nan_and_infinity_are_gaps() -> None:
    info = documents.training_info(b'{"a": NaN, "b": -99999999.0, "c": Infinity, "d": 0.5, "e": true}', "f")
    assert metrics.values(info) == {"a": None, "b": None, "c": None, "d": 0.5}


def test_series_have_gaps_where_a_step_lacks_a_metric() -> None:
    assert metrics.series([{"a": 1.0}, {"b": None}, {"a": 3.0}]) == {"a": (1.0, None, 3.0)}


def test_best_follows_the_rule_of_nemo_rl() -> None:
    assert metrics.best((0.1, 0.4, None, 0.4, 0.2), higher_is_better=True) == 3
    assert metrics.best((0.1, 0.4, None, 0.1, 0.2), higher_is_better=False) == 3
    assert metrics.best((None, None), higher_is_better=True) is None


@given(st.lists(st.none() | st.floats(-1e6, 1e6)), st.booleans())
def test_no_value_is_better_than_the_best(values: list[float | None], higher: bool) -> None:
    index = metrics.best(values, higher_is_better=higher)
    known = [value for value in values if value is not None]
    if index is None:
        assert not known
    else:
        assert values[index] == (max(known) if higher else min(known))
        assert values[index] not in values[index + 1 :]


@pytest.mark.parametrize(
    ("name", "keys", "found"),
    [
        ("val:accuracy", ["val:accuracy", "val_reward"], "val:accuracy"),
        ("val:reward", ["val_reward"], "val_reward"),
        ("val_reward", ["val_reward"], "val_reward"),
        ("train:loss", ["val:accuracy"], None),
        (None, ["val:accuracy"], None),
    ],
)
def test_tracked_metric_is_found_under_old_and_new_names(
    name: str | None, keys: list[str], found: str | None
) -> None:
    assert metrics.tracked(name, keys) == found


@given(st.dictionaries(st.text(), st.floats() | st.integers() | st.text() | st.none() | st.booleans()))
def test_values_are_finite_and_json_takes_the_info(info: dict[str, Any]) -> None:
    values = metrics.values(info)
    assert all(value is None or math.isfinite(value) for value in values.values())
    json.dumps(documents.finite(info), allow_nan=False)


# settings


def test_facts_are_read_from_the_settings() -> None:
    known = facts.of(SETTINGS)
    assert (known.algorithm, known.variant, known.base_model) == ("grpo", "grpo", "Qwen/Qwen2.5-1.5B")
    assert (known.precision, known.max_length, known.backend) == ("bfloat16", 512, "DTensor v2")
    assert (known.parallelism, known.gpus) == ({"tensor": 2}, 16)
    assert (known.datasets, known.prompts) == ({"train": "math"}, {"prompt_file": "cot.txt"})
    assert known.sampling == {"temperature": 0.7}
    assert not known.reward_model


def test_reward_models_are_known_by_algorithm_or_setting() -> None:
    assert facts.of({"rm": {}}).reward_model
    assert facts.of({"grpo": {}, "policy": {"reward_model_cfg": {"enabled": True}}}).reward_model


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda x: st.lists(x) | st.dictionaries(st.text(), x),
    )
)
def test_settings_of_any_shape_are_no_error(value: Any) -> None:
    facts.of({"policy": value, "data": value, "checkpointing": value, "cluster": value, "grpo": value})


def test_differences_hide_secrets_and_addresses() -> None:
    before = {"logger": {"api_key": "one", "url": "https://a:b@host/x"}, "lr": 1, "gone": None}
    after = {"logger": {"api_key": "two", "url": "https://c:d@host/x"}, "lr": 2, "new": [1]}
    found = {change.key: (change.before, change.after) for change in config_diff.changes(before, after)}
    assert found == {
        "gone": ("null", None),
        "logger.api_key": ("(hidden)", "(hidden)"),
        "logger.url": ("(hidden)", "(hidden)"),
        "lr": ("1", "2"),
        "new[0]": (None, "1"),
    }


def test_equal_settings_do_not_differ() -> None:
    assert config_diff.changes(SETTINGS, json.loads(json.dumps(SETTINGS))) == ()


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch marker']",
        "a: !!python/name:os.system",
        "[" * 5000,
        "a: &a [x,x]\n" + "".join(f"k{n}: *a\n" for n in range(2000)),
        "a: 1\n\x00",
        "- 1",
    ],
)
def test_settings_that_are_no_plain_mapping_are_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        documents.config(text.encode(), "config.yaml")


def test_a_target_in_the_settings_is_text() -> None:
    config = documents.config(b"model: {_target_: os.system, _args_: [touch marker]}", "config.yaml")
    assert documents.at(config, "model._target_") == "os.system"


@given(st.binary(max_size=200))
def test_any_bytes_are_a_document_or_invalid_input(data: bytes) -> None:
    for parse in (documents.config, documents.training_info):
        try:
            parse(data, "file")
        except InvalidInputError as error:
            assert "file" in error.message  # noqa: PT017  both outcomes are right


# runs


def test_a_run_is_read_whole(tmp_path: Path) -> None:
    for number, accuracy in ((10, 0.3), (20, 0.5), (30, float("nan")), (100, 0.5)):
        step(tmp_path, number, **{"val:accuracy": accuracy, "val_reward": -99999999.0})
    (tmp_path / "tmp_step_110").mkdir()
    (tmp_path / "old_step_90").mkdir()
    (tmp_path / "latest_checkpoint_status.json").write_text('{"last_checkpoint_step": 100}')
    run = runs.scan(tmp_path)
    assert [each.number for each in run.steps] == [10, 20, 30, 100]
    assert run.series == {"val:accuracy": (0.3, 0.5, None, 0.5)}
    assert (run.tracked, run.best, run.latest) == ("val:accuracy", 100, 100)
    assert run.ignored == ("old_step_90", "tmp_step_110")
    assert run.steps[2].info["val:accuracy"] == "NaN"
    assert run.steps[0].form.weight_bytes == 100
    json.dumps(run.steps[2].info, allow_nan=False)


@pytest.mark.parametrize("inner", ["", "policy", "policy/weights"])
def test_a_step_is_read_from_any_folder_in_it(tmp_path: Path, inner: str) -> None:
    step(tmp_path / "run", 7)
    run = runs.scan(tmp_path / "run" / "step_7" / inner)
    assert (run.name, [each.number for each in run.steps]) == ("run", [7])
    assert run.step(None).form.letter == "A"


def test_bare_weights_have_no_number(tmp_path: Path) -> None:
    (tmp_path / ".metadata").write_bytes(b"x")
    (tmp_path / "__0_0.distcp").write_bytes(b"x")
    found = runs.scan(tmp_path).step(None)
    assert (found.number, found.form.letter, found.problem) == (None, "A", None)


def test_a_folder_that_is_no_run_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(NotFoundError, match="no checkpoint"):
        runs.scan(tmp_path)


def test_one_of_several_steps_must_be_named(tmp_path: Path) -> None:
    step(tmp_path, 1)
    step(tmp_path, 2)
    run = runs.scan(tmp_path)
    with pytest.raises(InvalidInputError, match="2 steps"):
        run.step(None)
    with pytest.raises(NotFoundError, match="no step 3"):
        run.step(3)


def test_a_half_written_info_is_a_problem_of_its_step_alone(tmp_path: Path) -> None:
    (step(tmp_path, 1) / "training_info.json").write_text('{"val:acc')
    step(tmp_path, 2)
    first, second = runs.scan(tmp_path).steps
    assert "half written" in (first.problem or "")
    assert second.problem is None


def test_a_step_that_goes_while_it_is_read_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, _ = step(tmp_path, 1), step(tmp_path, 2)
    real = listing.small_file

    def read(path: Path, limit: int) -> bytes:
        shutil.rmtree(gone, ignore_errors=True)
        return real(path, limit)

    monkeypatch.setattr(listing, "small_file", read)
    run = runs.scan(tmp_path)
    assert [each.number for each in run.steps] == [2]
    assert run.vanished == 1


def test_the_only_step_going_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = step(tmp_path, 1)
    real = listing.small_file

    def read(path: Path, limit: int) -> bytes:
        shutil.rmtree(gone, ignore_errors=True)
        return real(path, limit)

    monkeypatch.setattr(listing, "small_file", read)
    with pytest.raises(ConflictError, match="step_1 disappeared"):
        runs.scan(tmp_path)


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    folder = step(tmp_path / "run", 1)
    (folder / "training_info.json").unlink()
    (folder / "training_info.json").symlink_to(tmp_path / "secret")
    (folder / "policy" / "more").symlink_to(tmp_path)
    found = runs.scan(tmp_path / "run").step(1)
    assert found.info == {}
    assert listing.files(folder).keys() == {
        "config.yaml", "train_dataloader.pt", W + ".metadata", W + "__0_0.distcp",
    }  # fmt: skip
