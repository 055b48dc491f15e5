"""A BentoML service; `bentoml serve bentoml_app:Torch`."""

from __future__ import annotations

import os
from typing import Annotated

import bentoml  # type: ignore[import-not-found] # the peer's environment has it
import numpy as np
from bentoml.validators import DType  # type: ignore[import-not-found]
from torch_model import infer, load  # type: ignore[import-not-found] # beside this file

BATCHING = bool(os.environ["BENCH_BATCHING"])
BATCH = {"batchable": True, "max_batch_size": int(os.environ["BENCH_MAX_BATCH"]), "max_latency_ms": 1000}


@bentoml.service(workers=1)
class Torch:
    def __init__(self) -> None:
        self._model = load()

    @bentoml.api(**(BATCH if BATCHING else {}))  # type: ignore[untyped-decorator]
    def predict(self, x: Annotated[np.ndarray, DType("float32")]) -> np.ndarray:
        y: np.ndarray = infer(self._model, x)
        return y
