"""AOTInductor: one `.pt2` package with machine code that torch compiled ahead of time.

The code checks neither sizes nor types of its inputs and reads where they say; so everything that the
signature says is checked here, before it is called.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from serving_agent.contract.signature import Signature, TensorSpec
from serving_agent.datatypes import DATATYPE_OF_TORCH
from serving_agent.errors import InvalidRequestError, StartError
from serving_agent.formats.base import name_outputs, only_file
from serving_agent.formats.graph import opening, running

if TYPE_CHECKING:
    from torch import Tensor

ENGINE: Final = "AOTInductor"
MODEL: Final = "model"
"""Name that torch gives the only model of a package."""


class AotInductor:
    """Opens packages of torch._inductor.aoti_compile_and_package."""

    name = "aot_inductor"
    title = "AOTInductor"
    description = "One .pt2 package with native code for one kind of processor; opened only when signed."
    is_program = True
    is_native = True
    is_module = False
    libraries = ()

    def load(self, artifact_dir: Path, device: str, signature: Signature) -> PackagedModel:
        """Load the package's library into this process. The caller has checked who made it.

        Raises StartError, for a package that was built for another kind of device or machine too.
        """
        path = only_file(artifact_dir, ".pt2")
        with opening(ENGINE):
            loader = _loader(path, device)
        return PackagedModel(loader, signature)


def _loader(path: Path, device: str) -> Any:
    """Return torch's loader of the package.

    For the CPU it is unpacked here, because torch would leave the copy that it makes behind; once the library
    is loaded its file is not needed. On a GPU kernels are read later.
    """
    import torch

    kind, _, index = device.partition(":")
    with tempfile.TemporaryDirectory(prefix="signalbox-aot-") if kind == "cpu" else nullcontext() as folder:
        if folder is not None:
            with zipfile.ZipFile(path) as package:
                package.extractall(folder)
        loader = torch._C._aoti.AOTIModelPackageLoader(
            folder or str(path), MODEL, False, 1, int(index) if index else -1
        )
    built_for = str(loader.get_metadata().get("AOTI_DEVICE_KEY", kind))
    if built_for != kind:
        raise StartError(f"the package was compiled for {built_for}, and this agent serves on {kind}")
    return loader


class PackagedModel:
    """A package's function, called with tensors that fit the signature."""

    def __init__(self, loader: Any, signature: Signature) -> None:
        """Raises StartError where the function takes another number of tensors than the signature says."""
        from torch.utils import _pytree

        taken, given = loader.get_call_spec()
        self._inputs = order_of_inputs(taken, signature)
        self._results = _pytree.treespec_loads(given)
        self._loader = loader
        self._signature = signature

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Run the function once. Raises InvalidRequestError where inputs break the signature."""
        from torch.utils import _pytree

        check_sizes(inputs, self._inputs)
        with running(ENGINE):
            flat = self._loader.run([inputs[spec.name].contiguous() for spec in self._inputs])
        return name_outputs(_pytree.tree_unflatten(flat, self._results), self._signature)


def order_of_inputs(call_spec: str, signature: Signature) -> tuple[TensorSpec, ...]:
    """Return the inputs in the order of the function's arguments. Pure. Raises StartError.

    call_spec: torch's JSON of (positional arguments, arguments by name).
    """
    positional, named = json.loads(call_spec)[1]["children_spec"]
    names = list(json.loads(named["context"])) if named["context"] not in (None, "null") else []
    by_name = {spec.name: spec for spec in signature.inputs}
    others = [spec for spec in signature.inputs if spec.name not in names]
    if len(positional["children_spec"]) != len(others) or not set(names) <= set(by_name):
        takes = len(positional["children_spec"]) + len(names)
        raise StartError(f"the package takes {takes} tensors; its signature declares {', '.join(by_name)}")
    return (*others, *(by_name[name] for name in names))


def check_sizes(inputs: Mapping[str, Tensor], specs: Sequence[TensorSpec]) -> None:
    """Check types and shapes, and that sizes left open on one axis are the same for all inputs.

    The compiled code takes them from one input and reads the others by them. Raises InvalidRequestError.
    """
    open_sizes: dict[int, tuple[str, int]] = {}
    for spec in specs:
        tensor = inputs[spec.name]
        shape = tuple(tensor.shape)
        fits = len(shape) == len(spec.shape) and all(
            size in (-1, actual) for size, actual in zip(spec.shape, shape, strict=True)
        )
        if not fits or DATATYPE_OF_TORCH.get(str(tensor.dtype)) != spec.datatype:
            raise InvalidRequestError(f"the model takes {spec}, not {tensor.dtype} of shape {list(shape)}")
        for axis, (size, actual) in enumerate(zip(spec.shape, shape, strict=True)):
            if size != -1:
                continue
            first, known = open_sizes.setdefault(axis, (spec.name, actual))
            if known != actual:
                raise InvalidRequestError(
                    f"size {actual} of {spec.name!r} on axis {axis} differs from size {known} of {first!r}"
                )


FORMAT: Final = AotInductor()
