"""NumPy arrays (.npz, .npy) of plain numbers: weights by the arrays' names."""

from __future__ import annotations

from typing import Final

from control_plane.admission import npy
from control_plane.admission.archive import Archive, looks_like_zip, open_archive
from control_plane.admission.base import Accepted, Received, ReceivedFile, Refusal
from control_plane.admission.formats import bare_weights
from control_plane.admission.reasons import ReasonCode
from control_plane.admission.tensors import SourceTensor, Storage

SUFFIX: Final = ".npy"


class NumpyArrays:
    """Lets arrays in after a person said which network they belong to."""

    name = "state_dict"

    def recognises(self, received: Received) -> bool:
        """Tell whether the files that matter are arrays, or one archive of arrays."""
        files, _ = bare_weights.split(received)
        if len(files) == 1 and files[0].name.lower().endswith(".npz") and looks_like_zip(files[0]):
            return True
        return bool(files) and all(file.head(len(npy.MAGIC)) == npy.MAGIC for file in files)

    def read(self, received: Received) -> Accepted:
        """Read the header of each array; arrays of Python objects are refused."""
        files, beside = bare_weights.split(received)
        parts = [tuple(_archive(file)) if looks_like_zip(file) else (_alone(file),) for file in files]
        tensors = bare_weights.together(parts, files[0].path)
        return bare_weights.accepted(tensors, beside, converted=True)


def _alone(file: ReceivedFile) -> SourceTensor:
    name = file.name.removesuffix(SUFFIX) or "array"
    return npy.tensor(name, file.head(npy.HEAD_BYTES), Storage(file.location, 0, file.size_bytes), file.path)


def _archive(file: ReceivedFile) -> list[SourceTensor]:
    with open_archive(file, in_folder=False) as archive:
        stray = next((name for name in archive.names if not name.endswith(SUFFIX)), None)
        if stray is not None:
            raise Refusal(
                ReasonCode.UNEXPECTED_MEMBER,
                f"{file.path} holds {stray[:120]}, which numpy.savez does not write",
                npy.SAVE_ARRAYS,
                file=file.path,
                member=stray[:120],
            )
        return [_member(archive, name, file) for name in archive.names]


def _member(archive: Archive, name: str, file: ReceivedFile) -> SourceTensor:
    storage = archive.storage(name)
    with file.location.open("rb") as raw:
        raw.seek(storage.offset)
        head = raw.read(min(npy.HEAD_BYTES, storage.size_bytes))
    return npy.tensor(name.removesuffix(SUFFIX), head, storage, file.path)


FORMAT: Final = NumpyArrays()
