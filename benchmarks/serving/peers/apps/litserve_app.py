"""LitServe with a model of its own.

decode_request and encode_response have no annotations, as in LitServe's documentation: with them it would put
each request and reply through pydantic.
"""

import os

import litserve  # type: ignore[import-not-found] # the peer's environment has it
import numpy as np
from torch_model import infer, load  # type: ignore[import-not-found] # beside this file

TUNED = bool(os.environ["BENCH_TUNED"])
BATCHING = bool(os.environ["BENCH_BATCHING"])


class TorchAPI(litserve.LitAPI):  # type: ignore[misc] # untyped base
    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe names it
        self._model = load()

    def decode_request(self, request):  # type: ignore[no-untyped-def] # see above
        x = np.asarray(request["x"], np.float32)
        return x[0] if BATCHING else x

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        return np.stack(inputs)

    def predict(self, x: np.ndarray) -> np.ndarray:
        y: np.ndarray = infer(self._model, x)
        return y

    def unbatch(self, output: np.ndarray) -> list[np.ndarray]:
        return [row[None] for row in output]

    def encode_response(self, output):  # type: ignore[no-untyped-def] # see above
        return {"y": output.tolist()}


if __name__ == "__main__":
    batch = {"max_batch_size": int(os.environ["BENCH_MAX_BATCH"]), "batch_timeout": 0.002} if BATCHING else {}
    server = litserve.LitServer(TorchAPI(**batch), accelerator="cpu", workers_per_device=1, fast_queue=TUNED)
    server.run(
        host="127.0.0.1",
        port=int(os.environ["BENCH_PORT"]),
        generate_client_file=False,
        **({"log_level": "warning", "access_log": False} if TUNED else {}),
    )
