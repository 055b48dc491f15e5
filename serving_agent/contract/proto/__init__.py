"""Message classes of the Open Inference Protocol's gRPC service, built from `open_inference.pb`.

They live in a descriptor pool of their own, so a process may also hold another library's copy of the same
messages (tritonclient). The descriptor file is made by `python -m serving_agent.contract.proto.build`.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Final

DESCRIPTOR_FILE: Final = Path(__file__).with_name("open_inference.pb")
"""A FileDescriptorSet with its imports; also what Envoy and grpcurl read."""
PACKAGE: Final = "inference"


class DescriptorMissingError(RuntimeError):
    """The descriptor file has not been built."""

    def __init__(self) -> None:
        super().__init__(
            f"{DESCRIPTOR_FILE.name} is missing: run `python -m serving_agent.contract.proto.build` "
            "(needs grpcio-tools) or install the package"
        )


@cache
def _pool() -> Any:  # google.protobuf ships no types
    from google.protobuf import descriptor_pb2, descriptor_pool  # type: ignore[import-untyped] # has no types

    if not DESCRIPTOR_FILE.exists():
        raise DescriptorMissingError
    pool = descriptor_pool.DescriptorPool()
    files = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTOR_FILE.read_bytes())
    for file in files.file:  # protoc writes imports before their importers
        pool.Add(file)
    return pool


@cache
def message_class(name: str) -> Any:
    """Return the class of message *name*, e.g. `ModelInferRequest`.

    Raises KeyError for an unknown message and DescriptorMissingError without the descriptor file.
    """
    from google.protobuf import message_factory

    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"{PACKAGE}.{name}"))


@cache
def enum_value(enum: str, name: str) -> int:
    """Return the number of *name* in *enum*, e.g. `DataType`, `TYPE_FP32`. Raises KeyError."""
    return int(_pool().FindEnumTypeByName(f"{PACKAGE}.{enum}").values_by_name[name].number)
