"""What it costs to record every layer of an encoder of 30 layers, against one plain inference of it.

`python -m benchmarks.inspection OUT.json [--rounds N] [--layers N] [--width N] [--tokens N]` makes one
encoder as a state dict (which agents run fused), as an exported program, as TorchScript, and as a BERT of
Hugging Face, then inspects each in turn, N rounds: all statistics and histograms, and attention weights where
there are any; once keeping no element and once keeping all. Both times of a ratio come from one process, one
after the other, on one thread; a round counts only where the recorded outputs are the plain ones bit for bit,
or where the run itself says that taking fused layers apart rounds otherwise.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

ROUNDS = 5
KEEP_ALL = 1 << 30
LIMIT = 10.0
"""Most times the plain inference that recording may take."""


def main() -> None:
    """Make the models, measure them in turn, write the raw numbers."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=64)
    given = parser.parse_args()
    from serving_agent import config

    config.prepare_environment(1)
    from serving_agent.startup import import_torch

    import_torch(1)
    with tempfile.TemporaryDirectory(prefix="inspection-") as folder:
        cases = made(Path(folder), given.layers, given.width, given.tokens)
        rounds = [
            measured(name, fields, keep, Path(folder) / f"{name}-{turn}-{keep}")
            for turn in range(given.rounds)
            for name, fields in cases.items()
            for keep in (0, KEEP_ALL)
        ]
    summary = summed_up(rounds)
    given.out.write_text(
        json.dumps(
            {
                "machine": platform.platform(),
                "layers": given.layers,
                "width": given.width,
                "tokens": given.tokens,
                "limit": LIMIT,
                "summary": summary,
                "rounds": rounds,
            },
            indent=1,
        )
        + "\n"
    )
    for line in summary:
        print(json.dumps(line))
    if any(line["median_ratio"] > LIMIT for line in summary):
        sys.exit("recording costs more than it may")


def made(folder: Path, layers: int, width: int, tokens: int) -> dict[str, dict[str, Any]]:
    """Write the models; by name what an order says of each."""
    import numpy as np
    import torch
    import transformers

    from serving_agent.contract import architecture
    from serving_agent.contract.signature import Signature, TensorSpec
    from serving_agent.inspection.captures.modules import without_fused_layers
    from tests.fakes import models

    torch.manual_seed(0)
    network = encoder(layers, width).eval()
    shape = (-1, tokens, width)
    states = Signature((TensorSpec("x", "FP32", shape),), (TensorSpec("y", "FP32", shape),))
    x = {"x": np.random.default_rng(0).standard_normal((1, tokens, width)).astype(np.float32)}
    example = torch.zeros(2, tokens, width)
    models.save_state_dict(network, folder / "state_dict", "benchmarks.inspection:encoder")
    builder = architecture.Architecture("benchmarks.inspection:encoder", {"layers": layers, "width": width})
    architecture.write(builder, folder / "state_dict")
    with torch.no_grad():
        models.save_exported(network, folder / "exported_program", example)
        with without_fused_layers():  # fused ones would be traced as one operator each
            models.save_torchscript(network, folder / "torchscript", example)
    bert = transformers.BertConfig(
        vocab_size=1000, hidden_size=width, num_hidden_layers=layers, num_attention_heads=4,
        intermediate_size=4 * width, max_position_embeddings=tokens,
    )  # fmt: skip
    transformers.utils.logging.disable_progress_bar()
    transformers.BertModel(bert, add_pooling_layer=False).eval().save_pretrained(folder / "huggingface")
    ids = Signature(
        (TensorSpec("input_ids", "INT64", (-1, tokens)),),
        (TensorSpec("last_hidden_state", "FP32", shape),),
    )
    of_states = {"signature": states, "inputs": x}
    words = {"input_ids": np.arange(tokens, dtype=np.int64)[None]}
    inputs = {
        "state_dict": of_states,
        "exported_program": of_states,
        "torchscript": of_states,
        "huggingface": {"signature": ids, "inputs": words},
    }
    return {name: {"folder": folder / name, **fields} for name, fields in inputs.items()}


def encoder(layers: int, width: int) -> Any:
    """A plain encoder of torch."""
    from torch import nn

    layer = nn.TransformerEncoderLayer(width, 4, 4 * width, batch_first=True)
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


def measured(name: str, fields: dict[str, Any], keep: int, out: Path) -> dict[str, Any]:
    """Inspect once; both times, and how much was seen."""
    from tests.fakes import inspected

    seen = inspected.inspected(format_=name, out=out, keep_bytes=keep, **fields)
    run = seen.run
    assert run.same_outputs or "with the layers apart" in run.note, run.note
    tensors = [tensor for point in run.points for tensor in point.outputs]
    assert all(tensor.histogram is not None for tensor in tensors if tensor.elements)
    result = {
        "case": name,
        "keeps": keep > 0,
        "plain_ms": round(1000 * run.plain_s, 3),
        "recorded_ms": round(1000 * run.recorded_s, 3),
        "ratio": round(run.recorded_s / run.plain_s, 2),
        "same_outputs": run.same_outputs,
        "points": len(run.points),
        "elements": sum(tensor.elements for tensor in tensors),
        "run_bytes": (out / "run.json").stat().st_size,
        "values_bytes": len(seen.values),
    }
    for path in out.iterdir():
        path.unlink()
    return result


def summed_up(rounds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The median ratio of each case, with its range."""
    lines = []
    for name, keeps in dict.fromkeys((each["case"], each["keeps"]) for each in rounds):
        of_case = [each for each in rounds if (each["case"], each["keeps"]) == (name, keeps)]
        ratios = [each["ratio"] for each in of_case]
        lines.append(
            {
                "case": name,
                "keeps": keeps,
                "median_ratio": round(statistics.median(ratios), 2),
                "from": min(ratios),
                "to": max(ratios),
                "median_plain_ms": statistics.median(each["plain_ms"] for each in of_case),
                "median_recorded_ms": statistics.median(each["recorded_ms"] for each in of_case),
                "points": of_case[0]["points"],
            }
        )
    return lines


if __name__ == "__main__":
    main()
