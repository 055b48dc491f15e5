"""`tensor`: the artefact's own tensors, unchanged."""

from __future__ import annotations

from typing import Final

from serving_agent.contract.signature import Signature
from serving_agent.errors import StartError
from serving_agent.model_server import ModelServer


class TensorHandler(ModelServer):
    """Passes tensors through."""

    name = "tensor"
    title = "Raw tensors"
    description = "Clients send and receive the model's own tensors."

    @classmethod
    def served_signature(cls, signature: Signature, labels: tuple[str, ...]) -> Signature:
        """Return *signature* itself; it cannot hold BYTES. Raises StartError."""
        del labels
        for spec in (*signature.inputs, *signature.outputs):
            if spec.datatype == "BYTES":
                raise StartError(f"{spec.name!r} is BYTES, which the tensor handler cannot pass to a model")
        return signature


HANDLER: Final = TensorHandler
