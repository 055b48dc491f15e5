"""The process in which a version is tried: `python -m control_plane.jobs.trial_process FD FOLDER`.

It imports what opens the file and then gives up all else, as far as the system lets it: the network, memory
beyond the limit, large files, other programs, and every file but libraries, the artefact and its own folder.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from control_plane.admission import isolation
from control_plane.jobs import trial_reach
from control_plane.jobs.trial_messages import Order, Outcome
from serving_agent.contract.signature import Signature, TensorSpec
from serving_agent.datatypes import DATATYPE_OF_TORCH, TORCH_NAME
from serving_agent.formats import catalog, huggingface, state_dict
from serving_agent.formats.base import LoadedModel, PositionalModel

if TYPE_CHECKING:
    from torch import Tensor

PR_SET_PDEATHSIG: Final = 1
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWNET: Final = 0x40000000
MAX_FILE_BYTES: Final = 64 * 1024 * 1024
OPEN_FILES: Final = 4096
"""Weights in many files are opened at once."""
OPEN_SIZES: Final = (8, 32, 128, 512, 1)
"""Sizes tried for dimensions other than the batch that the signature leaves open."""
BATCHES: Final = (1, 3)


class TrialError(Exception):
    """The program did not do what a model must; `stage` is a value of `Outcome.failed`."""

    def __init__(self, stage: str, message: str) -> None:
        super().__init__(message)
        self.outcome = msgspec.convert({"failed": stage, "message": message[:500]}, Outcome)


def main() -> int:
    """Try the program that stdin describes and say on the given pipe what came of it."""
    pipe, folder = int(sys.argv[1]), Path(sys.argv[2])
    os.set_inheritable(pipe, False)
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    die_with_parent()
    leave_network()
    start_folder = Path.cwd()
    os.chdir(folder)
    import_libraries(order.format)
    confine(order, folder, start_folder)
    outcome = attempt(order)
    os.write(pipe, msgspec.json.encode(outcome))
    sys.stderr.flush()
    os._exit(0)  # not through the program's own exit handlers


def die_with_parent() -> None:
    """Have Linux kill this process when the job that tries the program dies."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def import_libraries(format_name: str) -> None:
    """Import what opens this format while all files are in reach, and start no thread yet."""
    import torch

    torch.set_num_threads(1)
    for library in catalog.get(format_name).libraries:
        import_module(library)


def confine(order: Order, folder: Path, start_folder: Path) -> None:
    """Give up what trying does not need; what this system cannot take away is told in the log."""
    if order.format != state_dict.FORMAT.name:
        trial_reach.leave_out(start_folder)
    reached = isolation.confine(
        readable=[Path(order.artifact_dir), *trial_reach.libraries()],
        writable=[folder, *trial_reach.devices()],
        memory_bytes=order.memory_bytes,
        cpu_s=order.cpu_s,
        file_bytes=MAX_FILE_BYTES,
        open_files=OPEN_FILES,
        threads=True,
    )
    if reached.level != "S0":
        sys.stderr.write(
            f"confined by {reached.level}: Landlock {reached.landlock or 'missing'}, "
            f"seccomp {'on' if reached.seccomp else 'missing'}, limits {', '.join(reached.limits)}\n"
        )


def attempt(order: Order) -> Outcome:
    """Open the program and run it with several sizes."""
    import torch

    torch.manual_seed(0)
    try:
        with torch.inference_mode():
            return Outcome(outputs=measure(load(order), order.signature))
    except TrialError as error:
        return error.outcome
    except MemoryError:
        return Outcome(failed="memory")


def load(order: Order) -> Callable[..., Any]:
    """Return the opened model, to be called with tensors in order. Raises TrialError, MemoryError."""
    folder, format_ = Path(order.artifact_dir), catalog.get(order.format)
    if format_.is_native:
        raise TrialError("load", f"{format_.title} artefacts hold native code, which is never tried")
    try:
        model = format_.load(folder, "cpu", order.signature)
        if order.format == huggingface.FORMAT.name:
            huggingface.check_fit(folder, exact=order.exact)
    except Exception as error:
        raise _failed("load", "it cannot be opened", error) from error
    if isinstance(model, PositionalModel):
        return cast("Callable[..., Any]", model.module)
    return _by_name(model, order.signature)


def _by_name(model: LoadedModel, signature: Signature) -> Callable[..., Any]:
    """Return *model* as a function of tensors in order; it gives all outputs where none are declared."""
    names = [spec.name for spec in signature.inputs]

    def run(*tensors: Tensor) -> dict[str, Any]:
        inputs = dict(zip(names, tensors, strict=True))
        if not isinstance(model, huggingface.HuggingFaceModel):
            return dict(model(inputs))
        results = model.module(**inputs, return_dict=True)
        return {name: value for name, value in results.items() if hasattr(value, "shape")}

    return run


def measure(module: Any, signature: Signature) -> tuple[TensorSpec, ...]:
    """Return the outputs' names, types and shapes, -1 where a size follows the inputs'. Raises TrialError."""
    runs = list(_runs(module, signature))
    first = runs[0]
    if any([spec[:2] for spec in run] != [spec[:2] for spec in first] for run in runs):
        raise TrialError("results", "it returns other names or types for other sizes")
    return tuple(
        TensorSpec(name, datatype, _common([run[index][2] for run in runs]))
        for index, (name, datatype, _) in enumerate(first)
    )


Described = list[tuple[str, str, tuple[int, ...]]]
"""Name, datatype and shape of each output of one run."""


def _runs(module: Any, signature: Signature) -> Iterator[Described]:
    size, first = _first_that_runs(module, signature)
    yield first
    if any(spec.shape[:1] == (-1,) for spec in signature.inputs):
        yield _described(_call(module, _inputs(signature, BATCHES[1], size)), signature)
    if any(-1 in spec.shape[1:] for spec in signature.inputs):
        yield from _another_size(module, signature, size)


def _first_that_runs(module: Any, signature: Signature) -> tuple[int, Described]:
    """Return the first open size that the program takes, and what it returned for one row of it."""
    is_open = any(-1 in spec.shape[1:] for spec in signature.inputs)
    failure: TrialError | None = None
    for size in OPEN_SIZES if is_open else OPEN_SIZES[:1]:
        try:
            return size, _described(_call(module, _inputs(signature, BATCHES[0], size)), signature)
        except TrialError as error:
            failure = failure or error
    raise failure or TrialError("run", "it takes no size that was tried")


def _another_size(module: Any, signature: Signature, size: int) -> Iterator[Described]:
    """Yield a run with another open size, where the program takes one."""
    for other in OPEN_SIZES:
        if other != size:
            try:
                yield _described(_call(module, _inputs(signature, BATCHES[0], other)), signature)
            except TrialError:
                continue
            return


def _inputs(signature: Signature, batch: int, size: int) -> list[Tensor]:
    return [_random(spec, batch, size) for spec in signature.inputs]


def _random(spec: TensorSpec, batch: int, size: int) -> Tensor:
    """Return a random tensor that fits *spec*: standard normal, or zeros and ones."""
    import torch

    shape = [
        (batch if axis == 0 else size) if length == -1 else length for axis, length in enumerate(spec.shape)
    ]
    if spec.datatype not in TORCH_NAME:
        raise TrialError("run", f"its input {spec.name} is {spec.datatype}, which is no tensor of numbers")
    dtype = getattr(torch, TORCH_NAME[spec.datatype])
    return torch.randn(shape).to(dtype) if dtype.is_floating_point else torch.randint(0, 2, shape).to(dtype)


def _call(module: Any, inputs: list[Tensor]) -> Any:
    try:
        return module(*inputs)
    except Exception as error:
        shapes = ", ".join(str(list(tensor.shape)) for tensor in inputs)
        raise _failed("run", f"it fails for inputs of shape {shapes}", error) from error


def _failed(stage: str, what: str, error: Exception) -> Exception:
    import traceback

    traceback.print_exception(error)
    text = str(error)
    if isinstance(error, MemoryError) or "can't allocate memory" in text or "bad_alloc" in text:
        return MemoryError()
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = lines[-1] if lines else type(error).__name__
    return TrialError(stage, f"{what}: {said.removeprefix('builtins.')}")


def _described(result: Any, signature: Signature) -> Described:
    named = _named(result, signature)
    if not named:
        raise TrialError("results", "it returns nothing")
    return [(name, _datatype(name, value), tuple(value.shape)) for name, value in named]


def _named(result: Any, signature: Signature) -> list[tuple[str, Any]]:
    if isinstance(result, Mapping):
        return [(str(name), value) for name, value in result.items()]
    values = list(result) if isinstance(result, Sequence) else [result]
    declared = [spec.name for spec in signature.outputs]
    names = declared if len(declared) == len(values) else _numbered(len(values))
    return list(zip(names, values, strict=True))


def _numbered(count: int) -> list[str]:
    return ["output"] if count == 1 else [f"output_{index}" for index in range(count)]


def _datatype(name: str, value: Any) -> str:
    import torch

    if not isinstance(value, torch.Tensor):
        raise TrialError("results", f"its output {name} is a {type(value).__name__}, not a tensor")
    datatype = DATATYPE_OF_TORCH.get(str(value.dtype))
    if datatype is None:
        raise TrialError(
            "results", f"its output {name} is of type {value.dtype}, which the protocol does not know"
        )
    return datatype


def _common(shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
    if len({len(shape) for shape in shapes}) != 1:
        raise TrialError("results", "it returns outputs of other ranks for other sizes")
    if any(0 in shape for shape in shapes):
        raise TrialError("results", "it returns an empty output")
    return tuple(sizes[0] if len(set(sizes)) == 1 else -1 for sizes in zip(*shapes, strict=True))


def leave_network() -> bool:
    """Move this process to an empty network namespace; whether the system let it. Call before any thread."""
    unshare = getattr(ctypes.CDLL(None, use_errno=True), "unshare", None)
    if unshare is None:
        return False
    return any(unshare(flags) == 0 for flags in (CLONE_NEWNET, CLONE_NEWUSER | CLONE_NEWNET))


if __name__ == "__main__":
    raise SystemExit(main())
