"""KServe's Python model server with a custom model."""

from __future__ import annotations

import logging
import os
from typing import Any

from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer  # type: ignore[import-not-found]
from kserve.utils.utils import generate_uuid  # type: ignore[import-not-found]
from torch_model import infer, load  # type: ignore[import-not-found] # beside this file


class TorchModel(Model):  # type: ignore[misc] # untyped base
    def load(self) -> bool:
        self._model = load()
        self.ready = True
        return True

    async def predict(self, payload: InferRequest, *_headers: Any) -> Any:
        x = payload.inputs[0].as_numpy()
        y = infer(self._model, x if x.flags.writeable else x.copy())
        output = InferOutput("y", list(y.shape), "FP32")
        # the quickest way: KServe makes a list of it only where the reply is JSON
        output.set_data_from_numpy(y, binary_data=True)
        return InferResponse(
            payload.id or generate_uuid(),
            self.name,
            [output],
            use_binary_outputs=payload.use_binary_outputs,
        )


if __name__ == "__main__":
    model = TorchModel("bench")
    model.load()
    if os.environ["BENCH_TUNED"]:
        logging.getLogger("uvicorn.access").addFilter(lambda _: False)
    ModelServer(
        http_port=int(os.environ["BENCH_PORT"]),
        grpc_port=int(os.environ["BENCH_GRPC_PORT"]),
        enable_latency_logging=not os.environ["BENCH_TUNED"],
    ).start([model])
