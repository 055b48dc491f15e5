"""The sample inputs inside an exported program: a small torch file that must pickle plain tensors only."""

from __future__ import annotations

import io
import zipfile
from typing import Final

from control_plane.admission.base import Refusal
from control_plane.admission.pickle_symbols import Machine, NotAPickleError
from control_plane.admission.pickled_tensors import foreign_call
from control_plane.admission.reasons import ReasonCode

MAX_PICKLE_BYTES: Final = 1024 * 1024
MEMBERS: Final = ("data.pkl", ".format_version", ".storage_alignment", "byteorder", "version")


def check(data: bytes, file: str) -> None:
    """Check sample inputs as torch.save wrote them; *file* names the upload in refusals. Raises Refusal."""
    if not data:
        return
    try:
        found = foreign_call(Machine(_pickle(data)).run())
    except (
        NotAPickleError,
        zipfile.BadZipFile,
        KeyError,
        RuntimeError,
        ValueError,
        NotImplementedError,
        EOFError,
    ):
        found = "what cannot be read"
    if found is not None:
        raise Refusal(
            ReasonCode.UNEXPECTED_PICKLE,
            f"the sample inputs of {file} pickle {found}; only plain tensors are loaded",
            "Export the model with plain tensors as example inputs and save it again with torch.export.save.",
            file=file,
        )


def _pickle(data: bytes) -> bytes:
    """Return the only pickle of a torch file; a file with two meanings raises ValueError."""
    with zipfile.ZipFile(io.BytesIO(data)) as zipped:
        names = [member.filename for member in zipped.infolist()]
        tops = {name.partition("/")[0] for name in names}
        if len(set(names)) != len(names) or len(tops) != 1 or not data.startswith(b"PK\x03\x04"):
            raise ValueError("it is not what torch.save writes")
        if any(not _expected(name.partition("/")[2]) for name in names):
            raise ValueError("it holds other members")
        member = zipped.getinfo(f"{tops.pop()}/data.pkl")
        if member.file_size > MAX_PICKLE_BYTES:
            raise ValueError("its pickle is too large")
        return zipped.read(member)


def _expected(name: str) -> bool:
    return (
        name in MEMBERS
        or name == ".data/serialization_id"
        or (name.startswith("data/") and name[5:].isdecimal())
    )
