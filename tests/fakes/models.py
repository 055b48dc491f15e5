"""Tiny models, really trained, in every format the agent opens."""

from __future__ import annotations

import json
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from serving_agent.contract.signature import Signature, TensorSpec

DIGITS = Signature((TensorSpec("image", "FP32", (-1, 1, 8, 8)),), (TensorSpec("logits", "FP32", (-1, 10)),))
TEXT_SIGNATURE = Signature(
    (TensorSpec("input_ids", "INT64", (-1, -1)), TensorSpec("attention_mask", "INT64", (-1, -1))),
    (TensorSpec("logits", "FP32", (-1, 2)),),
)
REVIEWS = (
    ("a good film", 1), ("really good", 1), ("great and good", 1), ("the best film", 1), ("great", 1),
    ("a bad film", 0), ("really bad", 0), ("awful and bad", 0), ("the worst film", 0), ("awful", 0),
)  # fmt: skip


@cache
def digits_data() -> tuple[np.ndarray, np.ndarray]:
    """Images FP32 (n, 1, 8, 8) in [0, 1] and their classes (n,)."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return (data.images / 16.0).astype(np.float32)[:, None], data.target


@cache
def digits_model() -> nn.Module:
    """A one-layer classifier trained for a second: more than 90 % right on digits it has not seen."""
    torch.manual_seed(0)
    images, classes = (torch.from_numpy(part) for part in digits_data())
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(120):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[:1500]), classes[:1500]).backward()
        optimizer.step()
    return model.eval()


def smooth_digits() -> nn.Module:
    """The classifier with an element-wise function behind it, for which compilers make a kernel."""
    return nn.Sequential(digits_model(), nn.GELU()).eval()


def save_torchscript(
    model: nn.Module, folder: Path, example: torch.Tensor | tuple[torch.Tensor, ...] | None = None
) -> Path:
    """Write *model* as TorchScript into *folder*; traced where there is an *example*, else scripted."""
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
        program = torch.jit.script(model) if example is None else torch.jit.trace(model, example)
        torch.jit.save(program, str(folder / "model.pt"))
    return folder


def save_exported(model: nn.Module, folder: Path, example: torch.Tensor) -> Path:
    """Write *model* as an exported program with a free batch dimension."""
    folder.mkdir(parents=True, exist_ok=True)
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(model, (example,), dynamic_shapes=({0: batch},))
    torch.export.save(program, folder / "model.pt2")
    return folder


def save_onnx(
    model: nn.Module, folder: Path, example: tuple[torch.Tensor, ...], signature: Signature, **options: Any
) -> Path:
    """Write *model* as ONNX with the names of *signature* and its sizes of -1 left open."""
    folder.mkdir(parents=True, exist_ok=True)
    free = torch.export.Dim.DYNAMIC
    open_axes = tuple(
        {axis: free for axis, size in enumerate(spec.shape) if size == -1} for spec in signature.inputs
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own about onnxscript
        torch.onnx.export(
            model, example, folder / "model.onnx", dynamo=True, verbose=False, dynamic_shapes=open_axes,
            input_names=[spec.name for spec in signature.inputs],
            output_names=[spec.name for spec in signature.outputs],
            **{"external_data": False, **options},
        )  # fmt: skip
    return folder


def save_openvino(onnx: Path, folder: Path, precision: str = "f32") -> Path:
    """Write the ONNX model in the folder *onnx* as an OpenVINO graph."""
    import openvino

    folder.mkdir(parents=True, exist_ok=True)
    graph = openvino.Core().read_model(onnx / "model.onnx")
    openvino.save_model(graph, folder / "model.xml", compress_to_fp16=False)
    options = {"inference_precision": precision, "performance_hint": "LATENCY"}
    (folder / "openvino.json").write_text(json.dumps(options))
    return folder


def save_state_dict(model: nn.Module, folder: Path, builder: str) -> Path:
    """Write the weights of *model* with the name of what builds it, as the check stores them."""
    from safetensors.torch import save_file

    from serving_agent.contract import architecture

    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), folder / architecture.WEIGHTS)
    architecture.write(architecture.Architecture(builder), folder)
    return folder


def save_text_classifier(folder: Path) -> Path:
    """Fine-tune a tiny BERT on REVIEWS and write it as a Hugging Face folder; needs no network."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    words = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    words.normalizer = normalizers.BertNormalizer()
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    words.train_from_iterator(
        [text for text, _ in REVIEWS], trainers.WordPieceTrainer(special_tokens=special)
    )
    words.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", model_max_length=32
    )
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(
        transformers.BertConfig(
            vocab_size=words.get_vocab_size(),
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=32,
            id2label={0: "negative", 1: "positive"},
            label2id={"negative": 0, "positive": 1},
        )
    )
    _fine_tune(model, tokenizer)
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_reward_model(text_classifier: Path, folder: Path) -> Path:
    """Write the same network with one output, untrained, and its tokenizer."""
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig.from_pretrained(text_classifier, num_labels=1, problem_type="regression")
    transformers.BertForSequenceClassification(config).eval().save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(text_classifier).save_pretrained(folder)
    return folder


def _fine_tune(model: Any, tokenizer: Any) -> None:
    batch = tokenizer([text for text, _ in REVIEWS], padding=True, return_tensors="pt")
    labels = torch.tensor([label for _, label in REVIEWS])
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(25):
        optimizer.zero_grad()
        model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels
        ).loss.backward()
        optimizer.step()


class Slow(nn.Module):
    """Returns its input after a while: `input[:, 0] * loops` matrix products."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.ones(256, 256)
        for _ in range(int(x[0, 0].item())):
            y = (y @ y).clamp(max=1.0)
        return x + 0.0 * y[0, 0]


class Picky(nn.Module):
    """Fails for negative inputs, returns NaN above 100, and asks for 2**40 bytes at exactly 7."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = float(x[0, 0].item())
        if first < 0.0:
            raise RuntimeError("boom")
        if first == 7.0:
            return torch.zeros(1 << 38)[:1].reshape(1, 1)
        if first > 100.0:
            return x * float("nan")
        return x


class Broken(nn.Module):
    """Fails on every input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.numel() >= 0:
            raise RuntimeError("no weights at /srv/secret/weights.bin")
        return x


SCALAR = Signature((TensorSpec("x", "FP32", (-1, 1)),), (TensorSpec("y", "FP32", (-1, 1)),))
