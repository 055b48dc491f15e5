"""Files of kinds that are not served: what they are, and what to upload instead."""

from __future__ import annotations

from typing import Final

from control_plane.admission import state_dicts
from control_plane.admission.archive import Archive, looks_like_zip, member_names, open_archive
from control_plane.admission.base import Received, ReceivedFile, Refusal, Refused
from control_plane.admission.pickle_symbols import Machine, NotAPickleError
from control_plane.admission.reasons import ReasonCode

MAX_PICKLE_BYTES: Final = 64 * 1024 * 1024

SAVE_PROGRAM: Final = (
    "Save a program instead: torch.export.save(torch.export.export(model.eval(), (example,)), 'model.pt2') "
    "or torch.jit.script(model.eval()).save('model.pt')."
)

MAGIC: Final[tuple[tuple[bytes, ReasonCode, str], ...]] = (
    (b"\x89HDF\r\n\x1a\n", ReasonCode.HDF5, "an HDF5 file, as Keras and others save it"),
    (b"\x7fELF", ReasonCode.NATIVE_CODE, "compiled code"),
    (b"MZ", ReasonCode.NATIVE_CODE, "compiled code"),
    (b"\xcf\xfa\xed\xfe", ReasonCode.NATIVE_CODE, "compiled code"),
    (b"\x1f\x8b", ReasonCode.PLAIN_ARCHIVE, "a compressed file"),
    (b"7z\xbc\xaf\x27\x1c", ReasonCode.PLAIN_ARCHIVE, "a 7z archive"),
    (b"BZh", ReasonCode.PLAIN_ARCHIVE, "a compressed file"),
    (b"\xfd7zXZ", ReasonCode.PLAIN_ARCHIVE, "a compressed file"),
    (b"\x28\xb5\x2f\xfd", ReasonCode.PLAIN_ARCHIVE, "a compressed file"),
    (b"Rar!", ReasonCode.PLAIN_ARCHIVE, "a RAR archive"),
)
TAR_MAGIC: Final = b"ustar"
SUFFIXES: Final[tuple[tuple[tuple[str, ...], ReasonCode, str], ...]] = (
    ((".onnx",), ReasonCode.ONNX, "one of several ONNX models, or not alone with its own files"),
    ((".h5", ".hdf5", ".keras"), ReasonCode.HDF5, "a Keras model"),
    ((".npy", ".npz"), ReasonCode.NUMPY, "NumPy data"),
    ((".py", ".ipynb", ".sh"), ReasonCode.SOURCE_CODE, "source code"),
    ((".so", ".dll", ".dylib", ".exe"), ReasonCode.NATIVE_CODE, "compiled code"),
)
"""Told by their names, after the content said nothing."""


def explain(received: Received) -> Refused:
    """Say what the files are, why they are not served, and what to upload instead."""
    if len(received) > 1:
        return _several(received)
    (file,) = received
    for look in (_by_zip, _by_magic, _by_pickle, _by_suffix):
        refused = look(file)
        if refused is not None:
            return refused
    return Refused(
        ReasonCode.UNKNOWN_FORMAT,
        file.path,
        f"{file.path} is of no known kind, or its beginning is damaged",
        SAVE_PROGRAM,
    )


def _several(received: Received) -> Refused:
    for file in received:
        refused = _by_suffix(file) or _by_magic(file)
        if refused is not None:
            return refused
    weights = [file for file in received if state_dicts.is_state_dict(file, member_names((file,)))]
    if weights:
        return Refused(
            ReasonCode.STATE_DICT,
            weights[0].path,
            f"{weights[0].path} is a state dict among {len(received)} files: "
            "they do not say together which network it belongs to",
            "Upload that one file alone, or add config.json and the tokenizer of a Hugging Face folder.",
        )
    return Refused(
        ReasonCode.SEVERAL_FILES,
        None,
        f"{len(received)} files are neither one program nor a Hugging Face folder: config.json is missing",
        "Upload one .pt or .pt2 file, or a folder with config.json, safetensors weights and the tokenizer.",
    )


def _by_zip(file: ReceivedFile) -> Refused | None:
    if not looks_like_zip(file):
        return None
    try:
        with open_archive(file) as archive:
            return _zip_kind(archive)
    except Refusal as refusal:
        is_plain = refusal.refused.code == ReasonCode.PLAIN_ARCHIVE
        return (_by_suffix(file) if is_plain else None) or refusal.refused


def _zip_kind(archive: Archive) -> Refused:
    if any(name.startswith(".data/extern_modules") for name in archive.names):
        return _refused(
            ReasonCode.TORCH_PACKAGE, archive.file, "a torch.package, which runs its source when it is loaded"
        )
    if "archive_format" in archive or "version" in archive:
        return _refused(ReasonCode.BROKEN_PROGRAM, archive.file, "a torch archive that lacks its program")
    return _refused(ReasonCode.PLAIN_ARCHIVE, archive.file, "an archive; upload the files in it")


def _by_magic(file: ReceivedFile) -> Refused | None:
    head = file.head(512)
    for magic, code, what in MAGIC:
        if head.startswith(magic):
            return _refused(code, file.path, what)
    if head[257:262] == TAR_MAGIC:
        return _refused(ReasonCode.PLAIN_ARCHIVE, file.path, "a tar archive; upload the files in it")
    return None


def _by_pickle(file: ReceivedFile) -> Refused | None:
    data = file.head(MAX_PICKLE_BYTES)
    if data[:1] == b"\x80" and data[1:2] <= b"\x05":
        return _raw_pickle(file.path)
    try:
        machine = Machine(data)
        machine.run()
    except NotAPickleError:
        return None
    return _raw_pickle(file.path) if machine.globals or file.name.endswith((".pkl", ".pickle")) else None


def _raw_pickle(file: str) -> Refused:
    return _refused(ReasonCode.RAW_PICKLE, file, "a pickle, which runs code when it is loaded")


def _by_suffix(file: ReceivedFile) -> Refused | None:
    for suffixes, code, what in SUFFIXES:
        if file.name.lower().endswith(suffixes):
            return _refused(code, file.path, what)
    return None


ADVICE: Final[dict[ReasonCode, str]] = {
    ReasonCode.ONNX: f"Upload the PyTorch model it was made from. {SAVE_PROGRAM}",
    ReasonCode.HDF5: f"Upload a PyTorch model. {SAVE_PROGRAM}",
    ReasonCode.PLAIN_ARCHIVE: "Unpack it and upload the folder or the file in it.",
    ReasonCode.SOURCE_CODE: f"Upload a saved model, not its source. {SAVE_PROGRAM}",
    ReasonCode.BROKEN_ARCHIVE: "Save the model again and check that the whole file was copied.",
}
"""What to do, where saving a program is not the whole answer."""


def _refused(code: ReasonCode, file: str, what: str) -> Refused:
    return Refused(code, file, f"{file} is {what}", ADVICE.get(code, SAVE_PROGRAM))
