"""MLServer's custom runtime, as its documentation writes one."""

from __future__ import annotations

from mlserver import MLModel  # type: ignore[import-not-found] # the peer's environment has it
from mlserver.codecs import NumpyCodec  # type: ignore[import-not-found]
from mlserver.types import InferenceRequest, InferenceResponse  # type: ignore[import-not-found]
from torch_model import infer, load  # type: ignore[import-not-found] # beside this file


class TorchModel(MLModel):  # type: ignore[misc] # untyped base
    async def load(self) -> bool:
        self._model = load()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        x = self.decode(payload.inputs[0], default_codec=NumpyCodec)
        y = infer(self._model, x)
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("y", y)])
