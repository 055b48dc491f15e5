"""An artefact opened with its handler, exactly as an agent opens it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from control_plane.optimization import text_graphs
from control_plane.optimization.messages import Artefact
from serving_agent.contract.signature import Signature, TensorSpec
from serving_agent.datatypes import NUMPY_TYPE
from serving_agent.formats import catalog as formats
from serving_agent.handlers import catalog as handlers
from serving_agent.model_server import ModelContext, ModelServer

if TYPE_CHECKING:
    from torch import Tensor

Row = Mapping[str, Any]
"""One row by input name, as nested lists without the batch dimension."""
Batch = Mapping[str, "np.ndarray[Any, Any]"]


def opened(artefact: Artefact) -> ModelServer:
    """Open the artefact on the CPU. Raises StartError, and what the model's own code raises."""
    server = handlers.get(artefact.handler, artefact.allowed_handlers)()
    server.context = ModelContext(
        artifact_dir=Path(artefact.folder),
        format=formats.get(artefact.format),
        signature=server.served_signature(artefact.signature, artefact.labels),
        model_signature=artefact.signature,
        labels=artefact.labels,
        device="cpu",
    )
    server.load_model(server.context)
    return server


def batch_of(rows: Sequence[Row], signature: Signature) -> dict[str, np.ndarray[Any, Any]]:
    """*rows* as one batch of the served *signature*. Raises ValueError for rows of unequal shapes."""
    return {spec.name: _stacked([row[spec.name] for row in rows], spec) for spec in signature.inputs}


def _stacked(values: Sequence[Any], spec: TensorSpec) -> np.ndarray[Any, Any]:
    if spec.datatype != "BYTES":
        return np.stack([np.asarray(value, dtype=NUMPY_TYPE[spec.datatype]) for value in values])
    encoded = [value.encode() if isinstance(value, str) else value for value in values]
    return np.array(encoded, dtype=object)


def model_inputs(server: ModelServer, batch: Batch, signature: Signature) -> tuple[Tensor, ...]:
    """What the network itself gets for *batch*: tensors in the order of its own *signature*.

    Segments that a tokenizer does not tell are zeros, as agents fill them in.
    """
    import torch

    prepared = dict(server.preprocess(batch))
    if any(spec.name == text_graphs.SEGMENTS for spec in signature.inputs):
        prepared.setdefault(text_graphs.SEGMENTS, torch.zeros_like(prepared[text_graphs.IDS]))
    return tuple(prepared[spec.name] for spec in signature.inputs)
