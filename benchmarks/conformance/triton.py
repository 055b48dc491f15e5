"""A real Triton without a container: the server inside the `nvidia-pytriton` wheel, serving Python models.

Linux, x86-64. The wheel's own `Triton` class is not used: what runs is the plain `tritonserver`.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.serving import environments, processes
from serving_agent.contract.signature import Signature, TensorSpec

NAME: Final = "triton"
"""Of the environment `.peers/triton` and its requirements file."""
BACKENDS: Final = "backends"
PATIENCE: Final = ("--model-load-thread-count=1", "--backend-config=python,stub-timeout-seconds=120")
"""On a busy machine several interpreters that import torch at once outlast the backend's patience of 30 s."""
START_RACE: Final = "boost::interprocess::lock_exception"
"""What Triton 2.51 now and then ends with when a model takes long to load; the next attempt succeeds."""
ATTEMPTS: Final = 4
SHARED_MEMORY: Final = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a running Triton is reached, `host:port`."""

    rest: str
    grpc: str


@dataclass(frozen=True, slots=True)
class Served:
    """One model of a repository.

    source: the Python backend's `model.py`; program: the file it opens, copied beside it. max_batch_size: 0
    when the signature's shapes hold the batch dimension, else they still do but Triton batches along it.
    extra: further lines of the configuration, in protobuf's text format.
    """

    name: str
    signature: Signature
    source: Path
    program: Path
    max_batch_size: int = 0
    extra: str = ""


def prepare(environment: Path) -> None:
    """Lay out the Python backend in *environment*: the library and the stub for its interpreter."""
    wheel = site_packages(environment) / "pytriton" / "tritonserver"
    target = environment / BACKENDS / "python"
    shutil.copytree(wheel / "backends" / "python", target, dirs_exist_ok=True)
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copy2(wheel / "python_backend_stubs" / python / "triton_python_backend_stub", target)


def site_packages(environment: Path) -> Path:
    """Return where *environment*'s packages lie."""
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return environment / "lib" / python / "site-packages"


def libraries(environment: Path) -> Path:
    """Return the folder of shared libraries that the wheel brings."""
    return site_packages(environment) / "nvidia_pytriton.libs"


def write_repository(folder: Path, models: Sequence[Served]) -> Path:
    """Write a model repository with version 1 of each of *models*."""
    for model in models:
        version = folder / model.name / "1"
        version.mkdir(parents=True, exist_ok=True)
        shutil.copy2(model.source, version / "model.py")
        shutil.copy2(model.program, version / model.program.name)
        (folder / model.name / "config.pbtxt").write_text(config(model))
    return folder


def config(model: Served) -> str:
    """Return *model*'s configuration in protobuf's text format. Pure."""
    inputs = ", ".join(_tensor(spec, model) for spec in model.signature.inputs)
    outputs = ", ".join(_tensor(spec, model) for spec in model.signature.outputs)
    lines = [
        f'name: "{model.name}"',
        'backend: "python"',
        f"max_batch_size: {model.max_batch_size}",
        f"input [{inputs}]",
        f"output [{outputs}]",
        "instance_group [{ count: 1 kind: KIND_CPU }]",
    ]
    return "\n".join([*lines, *filter(None, [model.extra])]) + "\n"


def _tensor(spec: TensorSpec, model: Served) -> str:
    datatype = "STRING" if spec.datatype == "BYTES" else spec.datatype
    dims = list(spec.shape[1:] if model.max_batch_size else spec.shape)
    return f'{{ name: "{spec.name}" data_type: TYPE_{datatype} dims: {dims} }}'


@contextlib.contextmanager
def running(
    repository: Path,
    models: Sequence[str],
    folder: Path,
    *,
    core: int = 0,
    options: Sequence[str] = (),
) -> Iterator[Addresses]:
    """Run Triton with *models* of *repository* on CPU core *core*; yields once they are ready.

    folder: for its log. Models are loaded and unloaded on request only, as clients may ask for it. Raises
    processes.StartError with the end of the log.
    """
    with contextlib.ExitStack() as held:
        for attempts_left in reversed(range(ATTEMPTS)):
            try:
                found = held.enter_context(_started(repository, models, folder, core, options))
                break
            except processes.StartError as error:
                if START_RACE not in str(error) or not attempts_left:
                    raise
        yield found


@contextlib.contextmanager
def _started(
    repository: Path, models: Sequence[str], folder: Path, core: int, options: Sequence[str]
) -> Iterator[Addresses]:
    rest, grpc, metrics = processes.free_ports(3)
    home = environments.folder(NAME)
    shared = f"triton_{rest}_"
    command = [
        site_packages(home) / "pytriton" / "tritonserver" / "bin" / "tritonserver",
        f"--model-repository={repository}",
        f"--backend-directory={home / BACKENDS}",
        f"--backend-config=python,shm-region-prefix-name={shared}",
        "--model-control-mode=explicit",
        *PATIENCE,
        *(f"--load-model={name}" for name in models),
        *_listen("http", rest),
        *_listen("grpc", grpc),
        *_listen("metrics", metrics),
        *options,
    ]
    try:
        with processes.running(
            command, folder=folder, core=core, environment=_variables(home), name="triton"
        ) as server:
            server.wait_until(lambda: processes.answers(f"http://127.0.0.1:{rest}/v2/health/ready"))
            yield Addresses(f"127.0.0.1:{rest}", f"127.0.0.1:{grpc}")
    finally:
        _free_shared_memory(shared)


def _free_shared_memory(prefix: str) -> None:
    """Remove what a Triton that crashed or was killed leaves behind."""
    for left in SHARED_MEMORY.glob(f"{prefix}*"):
        left.unlink(missing_ok=True)


def _listen(kind: str, port: int) -> list[str]:
    return [f"--{kind}-address=127.0.0.1", f"--{kind}-port={port}"]


def _variables(home: Path) -> dict[str, str]:
    """Make the stub find this environment's interpreter: it is the first on PATH, and nothing else counts."""
    libraries_path = [str(libraries(home)), str(sysconfig.get_config_var("LIBDIR"))]
    return {
        "PATH": f"{home / 'bin'}:/usr/local/bin:/usr/bin:/bin",
        "LD_LIBRARY_PATH": ":".join(libraries_path),
    }
