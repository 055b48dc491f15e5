"""Triton's side of the benchmark: what its batcher hands over at once runs as one batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import triton_python_backend_utils as pb  # type: ignore[import-not-found]  # comes with the backend
from torch.utils.dlpack import from_dlpack

INPUT = "x"
OUTPUT = "y"


class TritonPythonModel:
    """The class that the backend asks for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the program; called once."""
        del args
        torch.set_num_threads(1)
        program = Path(__file__).with_name("model.pt")
        self.model = torch.jit.load(str(program)).eval()  # type: ignore[no-untyped-call]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer *requests* with one run of the model."""
        inputs = [from_dlpack(tensor_of(request).to_dlpack()) for request in requests]
        with torch.inference_mode():
            if len(inputs) == 1:
                return [response(self.model(inputs[0]))]
            outputs = self.model(torch.cat(inputs)).split([len(rows) for rows in inputs])
        return [response(rows) for rows in outputs]


def tensor_of(request: Any) -> Any:
    """Return the one input of *request*."""
    return pb.get_input_tensor_by_name(request, INPUT)


def response(rows: torch.Tensor) -> Any:
    """Return the answer to one request."""
    return pb.InferenceResponse([pb.Tensor.from_dlpack(OUTPUT, rows.contiguous())])
