"""Runs of NeMo RL as its own code lays them out, made with real torch: forms A to F, tied or not.

Distributed checkpoints are written by torch.distributed.checkpoint itself, in one process: `Chunked` tells
its planner of the chunks that several ranks would save.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    MetadataIndex,
    TensorProperties,
)
from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType
from torch.distributed.checkpoint.state_dict_saver import save

Box = tuple[tuple[int, ...], tuple[int, ...]]
"""Offsets and sizes."""
State = dict[str, torch.Tensor]


class Chunked:
    """A tensor that DCP saves as several chunks, as if each were another rank's."""

    def __init__(self, tensor: torch.Tensor, boxes: Sequence[Box]) -> None:
        self.tensor = tensor
        self.boxes = boxes

    def __create_write_items__(self, fqn: str, _object: Any) -> list[WriteItem]:
        return [
            WriteItem(
                index=MetadataIndex(fqn, torch.Size(offsets), number),
                type=WriteItemType.SHARD,
                tensor_data=TensorWriteData(
                    chunk=ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes)),
                    properties=TensorProperties.create_from_tensor(self.tensor),
                    size=self.tensor.size(),
                ),
            )
            for number, (offsets, sizes) in enumerate(self.boxes)
        ]

    def __create_chunk_list__(self) -> list[ChunkStorageMetadata]:
        return [ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes)) for offsets, sizes in self.boxes]

    def __get_tensor_shard__(self, index: MetadataIndex) -> torch.Tensor:
        assert index.offset is not None
        box = next(box for box in self.boxes if torch.Size(box[0]) == index.offset)
        return cut(self.tensor, box)


class ChunkedPlanner(DefaultSavePlanner):
    """torch's planner, which finds the chunks of `Chunked` as it finds those of its own sharded tensors."""

    def lookup_object(self, index: MetadataIndex) -> Any:
        """The chunk at *index*, or the whole object."""
        held = self.state_dict[index.fqn]
        return held.__get_tensor_shard__(index) if isinstance(held, Chunked) else super().lookup_object(index)


def cut(tensor: torch.Tensor, box: Box) -> torch.Tensor:
    """The part of *tensor* in *box*."""
    for axis, (offset, size) in enumerate(zip(*box, strict=True)):
        tensor = tensor.narrow(axis, offset, size)
    return tensor.contiguous()


def row_boxes(shape: Sequence[int], ranks: int) -> list[Box]:
    """How FSDP2 cuts axis 0: ceil(rows / ranks) each, so the last may get fewer or none."""
    if not shape:
        return [((), ())]
    height = -(-shape[0] // ranks)
    starts = range(0, shape[0], height)
    return [
        ((start, *(0 for _ in shape[1:])), (min(height, shape[0] - start), *shape[1:])) for start in starts
    ]


def grid_boxes(shape: Sequence[int], rows: int, columns: int) -> list[Box]:
    """FSDP by tensor parallelism: a matrix cut along both axes, anything else along its first."""
    if len(shape) != 2:
        return row_boxes(shape, rows)
    return [
        ((down[0], right[0]), (down_size[0], right_size[0]))
        for down, down_size in row_boxes(shape[:1], rows)
        for right, right_size in row_boxes(shape[1:], columns)
    ]


@dataclass(frozen=True)
class Base:
    """A base model as Hugging Face has it, and the state dict that "training" left."""

    folder: Path
    state: State
    """Without the second name of a tied head."""
    config: dict[str, Any]


def base_model(
    folder: Path, *, family: str = "llama", tied: bool = False, reward: bool = False, **sizes: Any
) -> Base:
    """Write a tiny random model of *family* with a tokenizer to *folder*; weights are float32."""
    import transformers

    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call] # its own is untyped
    kinds = {
        "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
        "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
        "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM),
    }
    config_class, model_class = kinds[family]
    chosen = {
        "vocab_size": 61, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "head_dim": 8,
        "tie_word_embeddings": tied, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, **sizes,
    }  # fmt: skip
    torch.manual_seed(7)
    config = config_class(**chosen, torch_dtype="bfloat16")
    model = model_class(config)
    folder.mkdir(parents=True, exist_ok=True)
    config.architectures = [model_class.__name__]
    config.save_pretrained(folder)
    save_tokenizer(folder, chosen["vocab_size"])
    if reward:
        model = transformers.LlamaForSequenceClassification(  # type: ignore[no-untyped-call] # its own is untyped
            config_class(**chosen, num_labels=1)
        )
    held = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    if tied:
        held.pop("lm_head.weight", None)
    return Base(folder, held, json.loads((folder / "config.json").read_text()))


def save_tokenizer(folder: Path, words: int) -> None:
    """Write a word-level tokenizer with a chat template."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {"[PAD]": 0, "<s>": 1, "</s>": 2, "[UNK]": 3} | {f"w{n}": n for n in range(4, words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(  # type: ignore[no-untyped-call] # its own is untyped
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", bos_token="<s>", eos_token="</s>"
    )
    fast.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    fast.save_pretrained(folder)


def settings(algorithm: str = "grpo", **changes: Any) -> dict[str, Any]:
    """A resolved config.yaml, shortened."""
    made: dict[str, Any] = {
        algorithm: {"num_prompts_per_step": 32, "max_num_steps": 1000},
        "policy": {
            "model_name": "Qwen/Qwen2.5-1.5B",
            "tokenizer": {"name": "Qwen/Qwen2.5-1.5B", "chat_template_kwargs": None},
            "precision": "bfloat16",
            "max_total_sequence_length": 512,
            "dtensor_cfg": {"_v2": True, "enabled": True, "tensor_parallel_size": 2,
                            "context_parallel_size": 1},
            "megatron_cfg": {"enabled": False, "tensor_model_parallel_size": 4},
            "generation": {"backend": "vllm", "temperature": 1.0, "top_p": 1.0, "top_k": None,
                           "max_new_tokens": 512, "stop_token_ids": None, "stop_strings": None},
            "hf_config_overrides": {},
        },
        "data": {
            "train": {"dataset_name": "OpenMathInstruct-2"},
            "validation": {"dataset_name": "AIME2024"},
            "default": {"prompt_file": "examples/prompts/cot.txt", "system_prompt_file": None},
        },
        "checkpointing": {"metric_name": "val:accuracy", "higher_is_better": True, "keep_top_k": 3,
                          "save_period": 10},
        "cluster": {"num_nodes": 1, "gpus_per_node": 8},
        "logger": {"wandb": {"project": "grpo", "api_key": "hf_abcdefghijklmnopqrstuv"},
                   "url": "https://user:pass@tracker.example.com/x"},
    }  # fmt: skip
    made.update(changes)
    return made


def write_step(
    run: Path,
    number: int,
    *,
    config: Mapping[str, Any] | None = None,
    tokenizer: Path | None = None,
    **info: Any,
) -> Path:
    """Write what a step has besides weights: info, config, tokenizer, and resume files never to be read."""
    step = run / f"step_{number}"
    (step / "policy" / "weights").mkdir(parents=True)
    (step / "training_info.json").write_text(
        json.dumps({"consumed_samples": number * 32, "current_step": number, "total_steps": number, **info})
    )
    (step / "config.yaml").write_text(yaml.safe_dump(dict(config or settings())))
    (step / "train_dataloader.pt").write_bytes(b"\x80\x02cposix\nsystem\n.")
    optimizer = step / "policy" / "optimizer" / "optim"
    optimizer.mkdir(parents=True)
    (optimizer / ".metadata").write_bytes(b"\x80\x02cposix\nsystem\n.")
    if tokenizer is not None:
        target = step / "policy" / "tokenizer"
        target.mkdir()
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            if (tokenizer / name).exists():
                (target / name).write_bytes((tokenizer / name).read_bytes())
    return step


def save_dcp(state: Mapping[str, Any], folder: Path, *, flatten: bool = True, one_file: bool = False) -> None:
    """Write a distributed checkpoint from this process alone, one file an item or one for all."""
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        save(
            dict(state),
            storage_writer=FileSystemWriter(folder, single_file_per_rank=one_file),
            planner=ChunkedPlanner(flatten_state_dict=flatten),
            no_dist=True,
        )


def chunked(state: State, ranks: int = 3, columns: int = 1) -> dict[str, Any]:
    """*state* as several ranks hold it."""
    return {name: Chunked(tensor, grid_boxes(tensor.shape, ranks, columns)) for name, tensor in state.items()}


def save_form_a(step: Path, state: State, *, tied: bool = False, ranks: int = 3, columns: int = 1) -> None:
    """DTensor v1: everything under "model", a tied head twice."""
    held = dict(state)
    if tied:
        held["lm_head.weight"] = held["model.embed_tokens.weight"]
    save_dcp({"model": chunked(held, ranks, columns)}, step / "policy" / "weights")


def save_form_c(step: Path, state: State, *, ranks: int = 2, columns: int = 2) -> None:
    """DTensor v2 with torch_save: flat keys, and objects among them."""
    save_dcp(chunked(state, ranks, columns), step / "policy" / "weights" / "model")


def save_form_b(
    step: Path, state: State, config: Mapping[str, Any], *, ranks: int = 3, columns: int = 1
) -> list[Path]:
    """DTensor v2: one safetensors file a rank with the place of each part; returns the files."""
    model = step / "policy" / "weights" / "model"
    (model / ".hf_metadata").mkdir(parents=True)
    (model / ".hf_metadata" / "config.json").write_text(json.dumps(dict(config)))
    parts: list[tuple[State, dict[str, Any]]] = [({}, {}) for _ in range(ranks * columns)]
    for name, tensor in state.items():
        for rank, box in enumerate(grid_boxes(tensor.shape, ranks, columns)):
            parts[rank][0][name] = cut(tensor, box)
            parts[rank][1][name] = {"saved_offsets": list(box[0])}
    files = []
    for rank, (held, offsets) in enumerate(parts, 1):
        files.append(model / f"shard-{rank:05d}-model-00001-of-00001.safetensors")
        metadata = {"DCP_SHARDING_INFO": json.dumps(offsets), "DCP_VERSION": "1.0", "format": "pt"}
        save_file(held, files[-1], metadata=metadata)
    return files


def save_form_d(step: Path, state: State, config: Mapping[str, Any]) -> Path:
    """DTensor v2 with save_consolidated: a Hugging Face folder in two shards."""
    folder = step / "policy" / "weights" / "model" / "consolidated"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(dict(config)))
    names = sorted(state)
    half = len(names) // 2
    for number, chosen in enumerate((names[:half], names[half:]), 1):
        save_file({name: state[name] for name in chosen}, folder / f"model-{number:05d}-of-00002.safetensors")
    return folder


def save_form_f(
    step: Path, state: State, config: Mapping[str, Any], *, ranks: int = 2, padding: int = 3
) -> None:
    """Megatron torch_dist: layers stacked, projections fused, vocabulary padded, optimiser among them."""
    held = megatron_state(state, config, padding)
    made: dict[str, Any] = {}
    for name, tensor in held.items():
        if name.startswith("decoder.layers."):
            boxes = [
                ((layer, *offsets), (1, *sizes))
                for layer in range(tensor.shape[0])
                for offsets, sizes in row_boxes(tensor.shape[1:], ranks)
            ]
        else:
            boxes = row_boxes(tensor.shape, ranks)
        made[name] = Chunked(tensor, boxes)
        made[f"optimizer.state.exp_avg.{name}"] = Chunked(torch.zeros_like(tensor), boxes)
    made["decoder.layers.self_attention.linear_qkv._extra_state/shard_0_2"] = {"any": "object"}
    save_dcp(made, step / "policy" / "weights" / "iter_0000000", flatten=False)


def megatron_state(state: State, config: Mapping[str, Any], padding: int) -> State:
    """*state* under Megatron's names and in its layout."""
    layers, heads = config["num_hidden_layers"], config["num_attention_heads"]
    groups, dim = config["num_key_value_heads"], config["head_dim"]

    def of(name: str) -> list[torch.Tensor]:
        return [state[f"model.layers.{index}.{name}"] for index in range(layers)]

    def fused(kind: str) -> torch.Tensor:
        stacked = []
        for q, k, v in zip(*(of(f"self_attn.{letter}_proj.{kind}") for letter in "qkv"), strict=True):
            rest = q.shape[1:]
            by_group = [
                q.view(groups, heads // groups * dim, *rest),
                k.view(groups, dim, *rest),
                v.view(groups, dim, *rest),
            ]
            stacked.append(torch.cat(by_group, dim=1).reshape(-1, *rest))
        return torch.stack(stacked)

    prefix = "decoder.layers."
    made = {
        "embedding.word_embeddings.weight": _padded(state["model.embed_tokens.weight"], padding),
        "decoder.final_layernorm.weight": state["model.norm.weight"],
        f"{prefix}self_attention.linear_qkv.weight": fused("weight"),
        f"{prefix}self_attention.linear_qkv.layer_norm_weight": torch.stack(of("input_layernorm.weight")),
        f"{prefix}self_attention.linear_proj.weight": torch.stack(of("self_attn.o_proj.weight")),
        f"{prefix}mlp.linear_fc1.weight": torch.stack(
            [
                torch.cat(pair)
                for pair in zip(of("mlp.gate_proj.weight"), of("mlp.up_proj.weight"), strict=True)
            ]
        ),
        f"{prefix}mlp.linear_fc1.layer_norm_weight": torch.stack(of("post_attention_layernorm.weight")),
        f"{prefix}mlp.linear_fc2.weight": torch.stack(of("mlp.down_proj.weight")),
    }
    if "lm_head.weight" in state:
        made["output_layer.weight"] = _padded(state["lm_head.weight"], padding)
    if "model.layers.0.self_attn.q_proj.bias" in state:
        made[f"{prefix}self_attention.linear_qkv.bias"] = fused("bias")
    for letter in "qk":
        if f"model.layers.0.self_attn.{letter}_norm.weight" in state:
            made[f"{prefix}self_attention.{letter}_layernorm.weight"] = torch.stack(
                of(f"self_attn.{letter}_norm.weight")
            )
    return made


def _padded(tensor: torch.Tensor, rows: int) -> torch.Tensor:
    return torch.cat([tensor, torch.full((rows, *tensor.shape[1:]), 9.0)])
