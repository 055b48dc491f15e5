"""What an agent can be asked: ready, metadata, configuration, infer. Both transports call this alone."""

from __future__ import annotations

from typing import Any, Final

from serving_agent import validation
from serving_agent.contract import wire
from serving_agent.contract.manifest import Manifest
from serving_agent.contract.signature import Signature, TensorSpec
from serving_agent.errors import NotFoundError, NotReadyError
from serving_agent.health import Health
from serving_agent.inference_thread import InferenceThread
from serving_agent.messages import InferReply, InferRequest
from serving_agent.metrics import Metrics

PLATFORM: Final = {
    "torchscript": "pytorch_libtorch",
    "exported_program": "pytorch_exported_program",
    "huggingface": "huggingface_transformers",
}
"""Format → `platform` in the model's metadata; any other format is its own name."""


class DataPlane:
    """Answers requests for the one model of a manifest; lives on the I/O loop's thread."""

    def __init__(self, manifest: Manifest, health: Health, thread: InferenceThread, metrics: Metrics) -> None:
        self.manifest = manifest
        self.health = health
        self.metrics = metrics
        self._thread = thread
        self._signature: Signature | None = None

    def open(self, signature: Signature) -> None:
        """Take the signature that clients see; from now on requests can be checked against it."""
        self._signature = signature

    @property
    def signature(self) -> Signature:
        """What clients see. Raises NotReadyError until the model is open."""
        if self._signature is None:
            raise NotReadyError(f"the model is not ready: the agent is {self.health.phase}")
        return self._signature

    def check_model(self, name: str, version: str) -> None:
        """Raise NotFoundError unless this agent serves *version* (empty for any) of endpoint *name*."""
        if name != self.manifest.endpoint:
            raise NotFoundError(f"no model {name!r} here; this agent serves {self.manifest.endpoint!r}")
        if version and version != str(self.manifest.version):
            raise NotFoundError(
                f"no version {version!r} of {name!r} here; this agent serves version {self.manifest.version}"
            )

    def model_ready(self, name: str, version: str) -> bool:
        """Tell whether the model answers and new clients are welcome. Raises NotFoundError."""
        self.check_model(name, version)
        return self.health.is_ready

    def server_metadata(self) -> dict[str, Any]:
        """Return the reply of `GET /v2`."""
        return {
            "name": wire.SERVER_NAME,
            "version": self.manifest.version_ref,
            "extensions": list(wire.EXTENSIONS),
        }

    def model_metadata(self, name: str, version: str) -> dict[str, Any]:
        """Return the reply of `GET /v2/models/{name}`. Raises NotFoundError or NotReadyError."""
        self.check_model(name, version)
        signature = self.signature
        return {
            "name": name,
            "versions": [str(self.manifest.version)],
            "platform": self.platform,
            "inputs": [_metadata(spec) for spec in signature.inputs],
            "outputs": [_metadata(spec) for spec in signature.outputs],
        }

    def model_config(self, name: str, version: str) -> dict[str, Any]:
        """Return Triton's model configuration, which NVIDIA's clients ask for.

        `max_batch_size` 0 says that the shapes include the batch dimension. Raises NotFoundError or
        NotReadyError.
        """
        self.check_model(name, version)
        signature = self.signature
        return {
            "name": name,
            "platform": self.platform,
            "max_batch_size": 0,
            "input": [_config(spec) for spec in signature.inputs],
            "output": [_config(spec) for spec in signature.outputs],
        }

    @property
    def platform(self) -> str:
        """The protocol's name for the artefact's format."""
        return PLATFORM.get(self.manifest.format, self.manifest.format)

    async def infer(self, request: InferRequest) -> InferReply:
        """Check *request*, run it on the inference thread and return the wanted outputs.

        Raises NotFoundError, NotReadyError, InvalidRequestError, QueueFullError, DeadlineError, ModelError.
        """
        self.check_model(request.model, request.version)
        self.health.check_answering()
        signature = self.signature
        wanted = validation.select_outputs(signature, request.outputs)
        inputs = validation.decode_inputs(signature, request.inputs, self.manifest.nan_policy)
        answer = await self._thread.submit(inputs, self._timeout_s(request.timeout_s))
        self.metrics.observe(answer.queue_s, answer.inference_s)
        by_name = {output.name: output for output in answer.outputs}
        return InferReply(request.id, tuple(by_name[spec.name] for spec in wanted))

    def _timeout_s(self, client_s: float | None) -> float:
        own_s = self.manifest.limits.request_timeout_s
        return own_s if client_s is None else max(0.0, min(own_s, client_s))


def _metadata(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def config_datatype(datatype: str) -> str:
    """Return the name that Triton's model configuration has for *datatype*."""
    return "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"


def _config(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "data_type": config_datatype(spec.datatype), "dims": list(spec.shape)}
