"""The base class of every handler: how one model turns named arrays into named arrays.

Writing a handler: subclass `ModelServer`, override what differs, and either add the module to
`serving_agent/handlers/catalog.py` or name `module:Class` in the operator's allow-list. Hooks run on the
inference thread, one batch at a time, in `torch.inference_mode()`; import torch inside them, because the
module itself is also listed by processes that must not load torch. A batch is one request, or the rows of
several with equal inner shapes and parameters; a handler whose rows depend on each other sets `row_wise` to
False and gets each request alone.

    load_model(context)    once; keep what you need on self; raise StartError with a sentence if it cannot
    preprocess(inputs)     dict of numpy arrays as clients sent them → what predict takes
    predict(inputs)        the model itself
    postprocess(outputs)   → dict of numpy arrays, one per output of `signature()`; never written to again,
                           because they are sent while the next batch already runs

A handler that takes or returns other tensors than the artefact does says so in `served_signature`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from serving_agent import execution
from serving_agent.contract.options import AS_STORED, Execution
from serving_agent.contract.signature import Signature
from serving_agent.datatypes import DATATYPE_OF_TORCH, FLOATS, NUMPY_TYPE, TORCH_NAME, Array
from serving_agent.errors import ModelError, StartError
from serving_agent.messages import Parameters

if TYPE_CHECKING:
    from torch import Tensor

    from serving_agent.formats.base import Format, LoadedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelContext:
    """What a handler may know of its model."""

    artifact_dir: Path
    format: Format
    signature: Signature
    """What clients see, after `served_signature`."""
    model_signature: Signature
    """What the artefact itself takes and returns."""
    labels: tuple[str, ...]
    device: str
    """`cpu` or `cuda:N`."""
    execution: Execution = AS_STORED
    """How torch runs the model."""

    def load_artifact(self) -> LoadedModel:
        """Open the artefact on the device. Raises StartError."""
        return self.format.load(self.artifact_dir, self.device, self.model_signature)


class ModelServer:
    """Serves an artefact as it is: named tensors in, named tensors out."""

    name: ClassVar[str] = ""
    """The handler's key in the catalogue."""
    title: ClassVar[str] = ""
    description: ClassVar[str] = ""
    row_wise: ClassVar[bool] = True
    """Whether each output row depends on the same input row alone, so that requests may share a batch."""

    needs_one_of: ClassVar[tuple[str, ...]] = ()
    """Files of which the artefact must hold one besides the model; empty where it needs none."""

    context: ModelContext
    """Set before `load_model` is called."""
    model: LoadedModel
    """Set by the `load_model` of this class."""
    parameters: Parameters = ()
    """The request parameters of the present batch, set before `preprocess`."""

    @classmethod
    def applies_to(cls, format_name: str) -> bool:
        """Tell whether this handler can serve artefacts of *format_name*."""
        del format_name
        return True

    @classmethod
    def served_signature(cls, signature: Signature, labels: tuple[str, ...]) -> Signature:
        """Return what clients see of an artefact with *signature*. Pure. Raises StartError if unfit."""
        del labels
        return signature

    def load_model(self, context: ModelContext) -> None:
        """Open the model. Called once, before any other hook."""
        self.model = context.load_artifact()

    def signature(self) -> Signature:
        """Return what clients see; may be more precise than `served_signature` once the model is open."""
        return self.context.signature

    def sample_inputs(self, open_size: int) -> dict[str, Array]:
        """Return inputs for a warm-up: one row, *open_size* for every other size left open."""
        return sample_inputs(self.signature(), open_size)

    def preprocess(self, inputs: Mapping[str, Array]) -> Mapping[str, Any]:
        """Return what `predict` takes: here, tensors on the device."""
        return {
            spec.name: self.to_tensor(inputs[spec.name], spec.datatype) for spec in self.signature().inputs
        }

    def predict(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the model's outputs by name."""
        return self.model(inputs)

    def postprocess(self, outputs: Mapping[str, Any]) -> Mapping[str, Array]:
        """Return arrays of the declared types. Raises ModelError where a type differs."""
        return {
            spec.name: from_tensor(
                self.at_full_precision(outputs[spec.name], spec.datatype), spec.name, spec.datatype
            )
            for spec in self.signature().outputs
        }

    def to_tensor(self, array: Array, datatype: str) -> Tensor:
        """Return *array* as a tensor of *datatype* on the device; copies what may not be written to."""
        import torch

        if datatype not in TORCH_NAME:
            raise StartError(
                f"{datatype} inputs need a handler that reads them; `{self.name}` passes tensors only"
            )
        writable = array if array.flags.writeable else array.copy()
        tensor = torch.from_numpy(writable).to(self.context.device, getattr(torch, TORCH_NAME[datatype]))
        return execution.laid_out(tensor, self.context.execution)

    def at_full_precision(self, tensor: Tensor, datatype: str) -> Tensor:
        """Return *tensor* in the declared type where autocast has lowered it; anything else as it is."""
        import torch

        lowered = self.context.execution.autocast != "off" and tensor.dtype == torch.bfloat16
        return tensor.to(getattr(torch, TORCH_NAME[datatype])) if lowered and datatype in FLOATS else tensor


def from_tensor(tensor: Tensor, name: str, datatype: str) -> Array:
    """Return *tensor* as an array; it must already be of *datatype*. Raises ModelError."""
    import torch

    actual = DATATYPE_OF_TORCH.get(str(tensor.dtype), str(tensor.dtype))
    if actual != datatype:
        raise ModelError(f"the model returned {name!r} as {actual}; its signature declares {datatype}")
    on_cpu = tensor.detach().cpu()
    array: Array = (on_cpu.float() if on_cpu.dtype == torch.bfloat16 else on_cpu).contiguous().numpy()
    return array


def sample_inputs(signature: Signature, open_size: int) -> dict[str, Array]:
    """Return arrays that fit *signature*: standard normal floats, zeros and ones, or the word "signal". Pure.

    The same every time: two starts of one version warm up alike.
    """
    random = np.random.default_rng(0)
    samples: dict[str, Array] = {}
    for spec in signature.inputs:
        sizes = [
            (1 if axis == 0 else open_size) if size == -1 else size for axis, size in enumerate(spec.shape)
        ]
        if spec.datatype == "BYTES":
            samples[spec.name] = np.full(sizes, b"signal", dtype=object)
        elif spec.datatype in FLOATS:
            samples[spec.name] = random.standard_normal(sizes).astype(NUMPY_TYPE[spec.datatype])
        else:
            samples[spec.name] = random.integers(0, 2, sizes).astype(NUMPY_TYPE[spec.datatype])
    return samples
