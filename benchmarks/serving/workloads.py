"""What is asked of every server: three models with one FP32 input `x` and one FP32 output `y`. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

INPUT: Final = "x"
OUTPUT: Final = "y"
SEED: Final = 20240607


@dataclass(frozen=True, slots=True)
class Workload:
    """One model and the requests made to it.

    row, answer: shapes of one row of input and output, without the batch dimension, which comes first and is
    1 in every request. distinct: how many different requests take turns, so that a mixed-up answer is seen.
    relative_tolerance: how far an answer may be from torch's own; batching changes the order of additions.
    """

    name: str
    title: str
    row: tuple[int, ...]
    answer: tuple[int, ...]
    distinct: int
    relative_tolerance: float

    def requests(self) -> FloatArray:
        """Return the inputs, shape (distinct, *row), FP32 in [0, 1); the same ones on every call."""
        random = np.random.default_rng(SEED)
        return random.random((self.distinct, *self.row), dtype=np.float32)


TINY: Final = Workload("tiny", "linear 4 → 4 (overhead)", (4,), (4,), 16, 1e-5)
LARGE: Final = Workload("large", "y = 2x + 1 on 150528 floats (serialisation)", (150528,), (150528,), 2, 1e-6)
CNN5: Final = Workload("cnn5", "CNN of about 5 ms (batching)", (1, 16, 16), (10,), 16, 1e-3)

WORKLOADS: Final = {workload.name: workload for workload in (TINY, LARGE, CNN5)}
