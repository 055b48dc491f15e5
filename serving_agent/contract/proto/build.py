"""Write `open_inference.pb` from the `.proto` files: `python -m serving_agent.contract.proto.build`.

Needs grpcio-tools, which only the build has.
"""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path

from serving_agent.contract.proto import DESCRIPTOR_FILE

ENTRY = "grpc_service.proto"


def build(target: Path = DESCRIPTOR_FILE) -> Path:
    """Compile the protocol into *target*, replaced atomically. Raises RuntimeError when protoc refuses."""
    from grpc_tools import protoc

    folder = DESCRIPTOR_FILE.parent
    partial = target.with_name(f"{target.name}.partial")
    code = protoc.main(
        [
            "protoc",
            f"--proto_path={folder}",
            f"--proto_path={files('grpc_tools') / '_proto'}",
            "--include_imports",
            f"--descriptor_set_out={partial}",
            str(folder / ENTRY),
        ]
    )
    if code != 0:
        raise RuntimeError(f"protoc ended with code {code}")
    partial.replace(target)
    return target


if __name__ == "__main__":
    sys.stdout.write(f"{build()}\n")
