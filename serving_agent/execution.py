"""How torch runs the model: memory layout, precision and compilation, as an endpoint's options ask."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final

from serving_agent.contract.options import Execution
from serving_agent.errors import StartError

if TYPE_CHECKING:
    from torch import Tensor

_AS_STORED: Final[AbstractContextManager[None]] = nullcontext()


def precision(execution: Execution, device: str) -> AbstractContextManager[Any]:
    """Return the context the model runs in: bf16 autocast on the device's kind, or none."""
    if execution.autocast == "off":
        return _AS_STORED
    import torch

    return torch.autocast(device.partition(":")[0], dtype=torch.bfloat16)


def laid_out(tensor: Tensor, execution: Execution) -> Tensor:
    """Return a four-dimensional *tensor* with its channels last where the options say so."""
    if not execution.channels_last or tensor.dim() != 4:
        return tensor
    import torch

    return tensor.contiguous(memory_format=torch.channels_last)


def prepared(module: Any, execution: Execution) -> Any:
    """Return *module* as the options want it. Raises StartError where one does not apply to it."""
    import torch

    if execution.channels_last:
        module = module.to(memory_format=torch.channels_last)
    if not execution.compile:
        return module
    if isinstance(module, torch.jit.ScriptModule):
        raise StartError(
            "torch.compile does not apply to TorchScript; turn the option off, or register the model as an "
            "exported program or a Hugging Face folder"
        )
    return torch.compile(module, dynamic=True)
