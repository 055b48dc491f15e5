"""Triton's side of a model: its Python backend loads this file as `model.py`, beside the TorchScript file.

It runs in Triton's own environment: torch, numpy and `triton_python_backend_utils`, nothing of ours. Numbers
go through torch, by DLPack as the backend has no numpy type for BF16; BYTES are rotated by numpy.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import triton_python_backend_utils as pb  # type: ignore[import-not-found]  # comes with the backend
from torch.utils.dlpack import from_dlpack


class TritonPythonModel:
    """The class that the backend asks for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the program; called once."""
        torch.set_num_threads(1)
        program = Path(__file__).with_name("model.pt")
        self.model = torch.jit.load(str(program)).eval()  # type: ignore[no-untyped-call]
        config = json.loads(args["model_config"])
        self.numeric = [spec for spec in config["input"] if spec["data_type"] != "TYPE_STRING"]
        self.numeric_out = [spec for spec in config["output"] if spec["data_type"] != "TYPE_STRING"]
        self.text = [spec for spec in config["input"] if spec["data_type"] == "TYPE_STRING"]
        self.text_out = [spec for spec in config["output"] if spec["data_type"] == "TYPE_STRING"]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer *requests*, one by one."""
        with torch.inference_mode():
            return [self.answer(request) for request in requests]

    def answer(self, request: Any) -> Any:
        """Return the response to *request* with the outputs it asks for."""
        wanted = set(request.requested_output_names())
        outputs = [*self.numbers(request), *self.texts(request)]
        return pb.InferenceResponse([output for output in outputs if output.name() in wanted])

    def numbers(self, request: Any) -> list[Any]:
        """Return the model's own outputs."""
        given = [pb.get_input_tensor_by_name(request, spec["name"]).to_dlpack() for spec in self.numeric]
        result = self.model(*map(from_dlpack, given))
        tensors = result if isinstance(result, tuple) else (result,)
        pairs = zip(self.numeric_out, tensors, strict=True)
        return [pb.Tensor.from_dlpack(spec["name"], tensor.contiguous()) for spec, tensor in pairs]

    def texts(self, request: Any) -> list[Any]:
        """Return the outputs of type BYTES."""
        given = [pb.get_input_tensor_by_name(request, spec["name"]).as_numpy() for spec in self.text]
        pairs = zip(self.text_out, given, strict=True)
        return [pb.Tensor(spec["name"], np.roll(array, -1, axis=1)) for spec, array in pairs]
