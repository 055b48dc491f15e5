"""Our agent's handler for the model `types`: torch rotates numbers, numpy rotates BYTES."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from serving_agent.contract.signature import Signature, TensorSpec
from serving_agent.datatypes import Array
from serving_agent.model_server import ModelContext, ModelServer, from_tensor

HANDLER: Final = "benchmarks.conformance.rotation:RotationHandler"


def _numeric(specs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    return tuple(spec for spec in specs if spec.datatype != "BYTES")


def _text(specs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    return tuple(spec for spec in specs if spec.datatype == "BYTES")


class RotationHandler(ModelServer):
    """Rotates each row of each input by one place."""

    name = "rotation"
    title = "Rotation"
    description = "Every datatype of the protocol, rotated by one place."

    def load_model(self, context: ModelContext) -> None:
        """Open the program, which takes and returns the numeric tensors."""
        declared = context.model_signature
        numeric = Signature(_numeric(declared.inputs), _numeric(declared.outputs))
        self.model = context.format.load(context.artifact_dir, context.device, numeric)

    def preprocess(self, inputs: Mapping[str, Array]) -> Mapping[str, Any]:
        """Return tensors for numbers and arrays for BYTES."""
        specs = self.signature().inputs
        tensors = {spec.name: self.to_tensor(inputs[spec.name], spec.datatype) for spec in _numeric(specs)}
        return tensors | {spec.name: inputs[spec.name] for spec in _text(specs)}

    def predict(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return all outputs: tensors and arrays."""
        signature = self.signature()
        pairs = zip(_text(signature.inputs), _text(signature.outputs), strict=True)
        texts = {output.name: np.roll(inputs[given.name], -1, axis=1) for given, output in pairs}
        return {**self.model({spec.name: inputs[spec.name] for spec in _numeric(signature.inputs)}), **texts}

    def postprocess(self, outputs: Mapping[str, Any]) -> Mapping[str, Array]:
        """Return arrays of the declared types."""
        specs = self.signature().outputs
        numbers = {
            spec.name: from_tensor(outputs[spec.name], spec.name, spec.datatype) for spec in _numeric(specs)
        }
        return numbers | {spec.name: outputs[spec.name] for spec in _text(specs)}
