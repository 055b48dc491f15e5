"""Checkpoints of NeMo RL become Hugging Face folders, bit for bit; damaged and hostile ones never do."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors import safe_open

from control_plane.admission import dcp_metadata
from control_plane.admission.base import ReceivedFile
from control_plane.errors import ConflictError, InvalidInputError, NoSpaceError, RefusedError, SignalboxError
from control_plane.nemo_rl import convert as converting
from control_plane.nemo_rl import shards, staging
from control_plane.nemo_rl.convert import Converted, Order
from control_plane.nemo_rl.plan import Wishes
from tests.fakes import nemo_rl_ranks
from tests.fakes import nemo_rl_runs as fakes
from tests.fakes.nemo_rl_runs import Base

Save = Callable[[Path, Base], Any]
SAVES: dict[str, Save] = {
    "A": lambda step, base: fakes.save_form_a(step, base.state),
    "A-grid": lambda step, base: fakes.save_form_a(step, base.state, ranks=3, columns=2),
    "B": lambda step, base: fakes.save_form_b(step, base.state, base.config),
    "B-grid": lambda step, base: fakes.save_form_b(step, base.state, base.config, ranks=2, columns=3),
    "C": lambda step, base: fakes.save_form_c(step, base.state),
    "D": lambda step, base: fakes.save_form_d(step, base.state, base.config),
    "F": lambda step, base: fakes.save_form_f(step, base.state, base.config),
}


def quiet(_stage: str, _done: float) -> None:
    """Progress that nobody watches."""


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """An untied Llama with grouped attention and an odd vocabulary."""
    return fakes.base_model(tmp_path_factory.mktemp("base") / "llama")


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """A Llama whose head is its embedding."""
    return fakes.base_model(tmp_path_factory.mktemp("base") / "tied", tied=True)


def order(run: Path, base: Base | None, work: Path, **changes: Any) -> Order:
    wishes = {"base": base.folder if base else None, "base_tokenizer": False, "dtype": "keep",
              "shard_bytes": 16 * 1024}  # fmt: skip
    given = {name: changes.pop(name) for name in list(changes) if name in wishes}
    work.mkdir(exist_ok=True)
    return Order(
        **{
            "folder": run,
            "step": 40,
            "wishes": Wishes(**{**wishes, **given}),
            "work": work,
            "keep_free_bytes": 0,
            "free_memory_bytes": 1 << 40,
            **changes,
        }
    )


def made(tmp_path: Path, base: Base, form: str, *, reward: bool = False, **changes: Any) -> Path:
    """A run with one step in *form*."""
    config = fakes.settings("rm" if reward else "grpo", **changes)
    step = fakes.write_step(
        tmp_path / "run", 40, config=config, tokenizer=base.folder, **{"val:accuracy": 0.39}
    )
    SAVES[form](step, base)
    return tmp_path / "run"


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118  it is no mapping
                assert name not in found
                found[name] = file.get_tensor(name)
    return found


def assert_equal(converted: Converted, state: fakes.State) -> None:
    found = tensors(converted.folder)
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("form", SAVES)
def test_every_form_converts_bit_for_bit(form: str, llama: Base, tmp_path: Path) -> None:
    converted = converting.convert(order(made(tmp_path, llama, form), llama, tmp_path / "work"), quiet)
    assert_equal(converted, llama.state)
    assert converted.lineage["form"] == form[0]
    assert converted.lineage["checks"]["run"] == "generated 4 tokens"
    assert (converted.folder / "model.safetensors.index.json").exists()
    assert not converted.reward_model


@pytest.mark.parametrize("form", ["A", "B", "C", "F"])
def test_float32_masters_become_bfloat16_as_torch_rounds(form: str, llama: Base, tmp_path: Path) -> None:
    run = made(tmp_path, llama, form)
    converted = converting.convert(order(run, llama, tmp_path / "work", dtype=None), quiet)
    assert_equal(converted, {name: tensor.to(torch.bfloat16) for name, tensor in llama.state.items()})
    assert converted.lineage["dtype"] == {"saved": "F32", "written": "BF16"}
    config = json.loads((converted.folder / "config.json").read_text())
    assert config["dtype"] == "bfloat16"


@pytest.mark.parametrize("form", ["A", "B", "C"])
def test_a_tied_head_is_kept_once(form: str, tied: Base, tmp_path: Path) -> None:
    run = made(tmp_path, tied, form)
    if form == "A":
        shutil.rmtree(run / "step_40" / "policy" / "weights")
        fakes.save_form_a(run / "step_40", tied.state, tied=True)
    assert_equal(converting.convert(order(run, tied, tmp_path / "work"), quiet), tied.state)


def test_a_head_that_is_not_the_embedding_it_is_tied_to_is_refused(tied: Base, tmp_path: Path) -> None:
    step = fakes.write_step(tmp_path / "run", 40, tokenizer=tied.folder)
    other = {**tied.state, "lm_head.weight": tied.state["model.embed_tokens.weight"] + 1}
    fakes.save_form_a(step, other)
    with pytest.raises(RefusedError, match=r"ties lm_head\.weight"):
        converting.convert(order(tmp_path / "run", tied, tmp_path / "work"), quiet)


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
@pytest.mark.parametrize("ranks", [1, 3])
def test_megatron_qwen_converts_bit_for_bit(family: str, ranks: int, tmp_path: Path) -> None:
    base = fakes.base_model(tmp_path / "base", family=family)
    step = fakes.write_step(tmp_path / "run", 40, tokenizer=base.folder)
    fakes.save_form_f(step, base.state, base.config, ranks=ranks)
    assert_equal(converting.convert(order(tmp_path / "run", base, tmp_path / "work"), quiet), base.state)


def test_a_reward_model_gets_one_output(tmp_path: Path) -> None:
    base = fakes.base_model(tmp_path / "base", reward=True)
    run = made(tmp_path, base, "A", reward=True)
    converted = converting.convert(order(run, base, tmp_path / "work"), quiet)
    assert_equal(converted, base.state)
    assert converted.reward_model
    config = json.loads((converted.folder / "config.json").read_text())
    assert config["architectures"] == ["LlamaForSequenceClassification"]
    assert config["id2label"] == {"0": "score"}


def test_overrides_of_the_training_reach_the_config(llama: Base, tmp_path: Path) -> None:
    policy = {**fakes.settings()["policy"], "hf_config_overrides": {"max_position_embeddings": 128}}
    run = made(tmp_path, llama, "B", policy=policy)
    converted = converting.convert(order(run, None, tmp_path / "work"), quiet)
    config = json.loads((converted.folder / "config.json").read_text())
    assert config["max_position_embeddings"] == 128
    assert converted.lineage["config_overrides"] == {"max_position_embeddings": 128}


def test_lineage_says_where_it_came_from(llama: Base, tmp_path: Path) -> None:
    run = made(tmp_path, llama, "B")
    lineage = converting.convert(order(run, None, tmp_path / "work"), quiet).lineage
    assert (lineage["run"], lineage["step"], lineage["algorithm"]) == (str(run), 40, "grpo")
    assert lineage["training_info"]["val:accuracy"] == 0.39
    shard = "policy/weights/model/shard-00001-model-00001-of-00001.safetensors"
    listed = {file["path"]: file["sha256"] for file in lineage["source_files"]}
    assert listed[shard] == staging.sha256(run / "step_40" / shard)
    assert lineage["config_sha256"] == staging.sha256(run / "step_40" / "config.yaml")
    assert lineage["tokenizer"]["origin"] == "step"
    assert lineage["tokenizer"]["chat_template_sha256"]
    assert lineage["sampling"]["temperature"] == 1.0
    json.dumps(lineage, allow_nan=False)


def test_nothing_but_weights_and_small_files_is_held(llama: Base, tmp_path: Path) -> None:
    run = made(tmp_path, llama, "A")
    converting.convert(order(run, llama, tmp_path / "work"), quiet)
    held = [path.name for path in (tmp_path / "work" / "source").rglob("*") if path.is_file()]
    assert not [name for name in held if name.endswith(".pt")]
    assert not list((tmp_path / "work" / "source").rglob("optimizer"))


def test_the_steps_own_files_stay_as_they_were(llama: Base, tmp_path: Path) -> None:
    run = made(tmp_path, llama, "A")
    before = {path: (path.stat().st_mode, path.stat().st_size) for path in run.rglob("*") if path.is_file()}
    converting.convert(order(run, llama, tmp_path / "work"), quiet)
    assert before == {path: (path.stat().st_mode, path.stat().st_size) for path in before}


# going on, and being taken away


class Stopped(Exception):  # noqa: N818  a signal of this test
    """Ends a conversion."""


def test_a_conversion_goes_on_at_the_first_unfinished_shard(llama: Base, tmp_path: Path) -> None:
    run = made(tmp_path, llama, "A")
    wanted = order(run, llama, tmp_path / "work")

    def stop(stage: str, _done: float) -> None:
        if stage == "convert" and len(list((tmp_path / "work" / "model").glob("*.safetensors"))) > 3:
            raise Stopped

    with pytest.raises(Stopped):
        converting.convert(wanted, stop)
    finished = json.loads((tmp_path / "work" / shards.JOURNAL).read_text())["done"]
    assert finished
    times = {name: (tmp_path / "work" / "model" / name).stat().st_mtime_ns for name in finished}
    damaged = next(iter(finished))
    with (tmp_path / "work" / "model" / damaged).open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")
    shutil.rmtree(run)  # a running training deleted the step meanwhile
    converted = converting.convert(wanted, quiet)
    assert_equal(converted, llama.state)
    assert converted.lineage["shards_reused"] == len(finished) - 1
    kept = {name: (converted.folder / name).stat().st_mtime_ns for name in finished if name != damaged}
    assert kept == {name: times[name] for name in kept}


def test_a_step_that_goes_before_it_is_held_is_a_clear_error(
    llama: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = made(tmp_path, llama, "A")
    real = os.link

    def link(source: Path, target: Path, **options: Any) -> None:
        shutil.rmtree(run, ignore_errors=True)
        real(source, target, **options)

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(ConflictError, match="disappeared"):
        converting.convert(order(run, llama, tmp_path / "work"), quiet)


def test_files_are_copied_where_links_cannot_be_made(
    llama: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_args: Any, **_options: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", link)
    run = made(tmp_path, llama, "B")
    converted = converting.convert(order(run, None, tmp_path / "work"), quiet)
    assert converted.lineage["held_by"] == "copies"
    assert_equal(converted, llama.state)


def test_a_disk_without_room_is_said_before_anything_is_written(llama: Base, tmp_path: Path) -> None:
    run = made(tmp_path, llama, "B")
    with pytest.raises(NoSpaceError):
        converting.convert(order(run, None, tmp_path / "work", keep_free_bytes=1 << 62), quiet)
    assert not list((tmp_path / "work" / "model").glob("*.safetensors"))


# damage and attacks


class Evil:
    """Leaves a marker when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str, ...]]:
        return os.system, (f"touch {self.marker}",)


def weights(run: Path) -> Path:
    return run / "step_40" / "policy" / "weights"


def refused(run: Path, base: Base | None, work: Path) -> SignalboxError:
    with pytest.raises((RefusedError, InvalidInputError)) as error:
        converting.convert(order(run, base, work), quiet)
    assert not list((work / "model").glob("*.safetensors"))
    return error.value


def rewrite(path: Path, change: Callable[[Any], None]) -> None:
    """Load a `.metadata` of our own making, change it, write it back."""
    import pickle

    metadata = pickle.loads(path.read_bytes())
    change(metadata)
    path.write_bytes(pickle.dumps(metadata))


def test_code_in_the_metadata_is_refused_and_never_runs(llama: Base, tmp_path: Path) -> None:
    run = made(tmp_path, llama, "A")
    marker = tmp_path / "marker"
    rewrite(weights(run) / ".metadata", lambda metadata: setattr(metadata, "storage_meta", Evil(marker)))
    error = refused(run, llama, tmp_path / "work")
    assert error.details["reason"] == "unexpected-pickle"
    assert "system" in error.message
    assert not marker.exists()


def test_code_in_a_byte_item_is_never_read(llama: Base, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    step = fakes.write_step(tmp_path / "run", 40, tokenizer=llama.folder)
    fakes.save_dcp({"model": {**fakes.chunked(llama.state), "evil": Evil(marker)}}, weights(tmp_path / "run"))
    assert step.exists()
    assert_equal(converting.convert(order(tmp_path / "run", llama, tmp_path / "work"), quiet), llama.state)
    assert not marker.exists()


def test_code_in_the_place_of_a_tensor_is_refused_and_never_runs(llama: Base, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    run = made(tmp_path, llama, "A")

    def swap(metadata: Any) -> None:
        index = next(each for each in metadata.storage_data if each.fqn == "model.model.norm.weight")
        place = metadata.storage_data[index]
        target = weights(run) / "__0_999.distcp"
        torch.save(Evil(marker), target)
        place.relative_path, place.offset, place.length = target.name, 0, target.stat().st_size

    rewrite(weights(run) / ".metadata", swap)
    error = refused(run, llama, tmp_path / "work")
    assert error.details["reason"] == "broken-weights"
    assert not marker.exists()


@pytest.mark.parametrize("path", ["../../../secret", "/etc/passwd", "a/../__0_0.distcp", "__0_0.distcp/../x"])
def test_paths_that_leave_the_folder_are_refused(path: str, llama: Base, tmp_path: Path) -> None:
    run = made(tmp_path, llama, "A")

    def lead_out(metadata: Any) -> None:
        next(iter(metadata.storage_data.values())).relative_path = path

    rewrite(weights(run) / ".metadata", lead_out)
    assert refused(run, llama, tmp_path / "work").details["reason"] == "unsafe-name"


def test_a_chunk_that_the_metadata_lacks_is_found(llama: Base, tmp_path: Path) -> None:
    run = made(tmp_path, llama, "A")

    def drop(metadata: Any) -> None:
        metadata.state_dict_metadata["model.lm_head.weight"].chunks.pop(1)

    rewrite(weights(run) / ".metadata", drop)
    error = refused(run, llama, tmp_path / "work")
    assert "lm_head.weight" in error.message


def test_two_chunks_in_one_place_are_found(llama: Base, tmp_path: Path) -> None:
    run = made(tmp_path, llama, "A")

    def double(metadata: Any) -> None:
        chunks = metadata.state_dict_metadata["model.lm_head.weight"].chunks
        chunks[1] = chunks[0]

    rewrite(weights(run) / ".metadata", double)
    refused(run, llama, tmp_path / "work")


@pytest.mark.parametrize("index", [1, 2, 3])
def test_a_missing_safetensors_shard_is_found(index: int, llama: Base, tmp_path: Path) -> None:
    run = made(tmp_path, llama, "B")
    sorted((weights(run) / "model").glob("shard-*"))[index - 1].unlink()
    refused(run, None, tmp_path / "work")


@pytest.mark.parametrize("form", ["A", "B", "C", "D", "F"])
def test_a_cut_file_is_found(form: str, llama: Base, tmp_path: Path) -> None:
    run = made(tmp_path, llama, form)
    largest = max(
        (path for path in weights(run).rglob("*") if path.suffix in {".distcp", ".safetensors"}),
        key=lambda path: path.stat().st_size,
    )
    os.truncate(largest, largest.stat().st_size - 100)
    refused(run, llama, tmp_path / "work")


@pytest.mark.parametrize("form", ["A", "C", "F"])
def test_a_missing_data_file_is_found(form: str, llama: Base, tmp_path: Path) -> None:
    run = made(tmp_path, llama, form)
    metadata = next(weights(run).rglob(".metadata"))
    said = dcp_metadata.read(ReceivedFile(".metadata", metadata, metadata.stat().st_size))
    ends = ("model.norm.weight", "decoder.final_layernorm.weight")
    norm = next(tensor for tensor in said.tensors if tensor.key.endswith(ends))
    (metadata.parent / norm.chunks[0].file).unlink()
    assert "missing" in refused(run, llama, tmp_path / "work").message


def test_a_flipped_bit_in_a_distributed_checkpoint_is_found(llama: Base, tmp_path: Path) -> None:
    run = made(tmp_path, llama, "A")
    largest = max(weights(run).rglob("*.distcp"), key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)
    with pytest.raises(RefusedError, match="checksum"):
        converting.convert(order(run, llama, tmp_path / "work"), quiet)


def test_a_missing_consolidated_file_is_found(llama: Base, tmp_path: Path) -> None:
    run = made(tmp_path, llama, "D")
    (weights(run) / "model" / "consolidated" / "model-00002-of-00002.safetensors").unlink()
    assert "missing" in refused(run, llama, tmp_path / "work").message


def test_weights_of_another_architecture_are_refused(llama: Base, tmp_path: Path) -> None:
    other = fakes.base_model(tmp_path / "other", num_hidden_layers=3)
    error = refused(made(tmp_path, llama, "A"), other, tmp_path / "work")
    assert error.details["reason"] == "incomplete-weights"
    assert "model.layers.2" in error.message


def test_weights_that_diverged_are_refused(llama: Base, tmp_path: Path) -> None:
    state = {**llama.state, "model.norm.weight": torch.full((32,), float("nan"))}
    step = fakes.write_step(tmp_path / "run", 40, tokenizer=llama.folder)
    fakes.save_form_a(step, state)
    with pytest.raises(RefusedError, match="NaN"):
        converting.convert(order(tmp_path / "run", llama, tmp_path / "work"), quiet)


def test_an_adapter_is_explained(tmp_path: Path) -> None:
    step = fakes.write_step(tmp_path / "run", 40)
    (step / "policy/weights/model").mkdir()
    (step / "policy/weights/model/adapter_model.safetensors").write_bytes(b"x")
    with pytest.raises(RefusedError, match="LoRA adapter"):
        converting.convert(order(tmp_path / "run", None, tmp_path / "work"), quiet)


def test_a_step_without_config_asks_for_the_base_model(llama: Base, tmp_path: Path) -> None:
    error = refused(made(tmp_path, llama, "A"), None, tmp_path / "work")
    assert "base model" in (error.next_step or "")


def test_the_base_models_tokenizer_needs_a_word(llama: Base, tmp_path: Path) -> None:
    run = made(tmp_path, llama, "A")
    shutil.rmtree(run / "step_40" / "policy" / "tokenizer")
    assert "tokenizer" in refused(run, llama, tmp_path / "work").message
    allowed = order(run, llama, tmp_path / "work", base_tokenizer=True)
    shutil.rmtree(allowed.work)
    allowed.work.mkdir()
    assert converting.convert(allowed, quiet).lineage["tokenizer"]["origin"] == "base model"


def test_code_that_a_config_names_is_left_out(llama: Base, tmp_path: Path) -> None:
    run = made(tmp_path, llama, "B")
    config = weights(run) / "model" / ".hf_metadata" / "config.json"
    config.write_text(json.dumps({**llama.config, "auto_map": {"AutoModelForCausalLM": "evil.Evil"}}))
    (config.parent / "evil.py").write_text("raise SystemExit")
    converted = converting.convert(order(run, None, tmp_path / "work"), quiet)
    assert converted.lineage["config_entries_dropped"] == ["auto_map"]
    assert "auto_map" not in (converted.folder / "config.json").read_text()
    assert not list(converted.folder.glob("*.py"))


# written by real ranks


def test_what_four_ranks_of_fsdp_and_tensor_parallelism_save_converts_bit_for_bit(tmp_path: Path) -> None:
    base = fakes.base_model(tmp_path / "base", hidden_size=24, head_dim=6, vocab_size=59)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig.from_pretrained(base.folder))
    model.load_state_dict(base.state)
    model.save_pretrained(tmp_path / "start")
    (tmp_path / "saved").mkdir()
    nemo_rl_ranks.save(tmp_path / "start", tmp_path / "saved")
    for form in "AB":
        step = fakes.write_step(tmp_path / form, 40, tokenizer=base.folder)
        target = step / "policy" / "weights"
        if form == "A":
            shutil.copytree(tmp_path / "saved" / "A", target, dirs_exist_ok=True)
        else:
            shutil.copytree(tmp_path / "saved" / "B", target / "model")
            (target / "model" / ".hf_metadata").mkdir()
            shutil.copy(base.folder / "config.json", target / "model" / ".hf_metadata")
        converted = converting.convert(order(tmp_path / form, base, tmp_path / f"work-{form}"), quiet)
        assert converted.lineage["form"] == form
        assert_equal(converted, base.state)
