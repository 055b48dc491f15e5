"""torch.export programs: one .pt2 zip whose JSON says names, types and shapes of inputs and outputs.

Layout: torch/export/pt2_archive (torch 2.8 and later). Loading such a file unpickles sample inputs, evaluates
symbolic sizes with sympy and runs guards as Python, so each must be what torch.export writes.
"""

from __future__ import annotations

import re
from typing import Any, Final

from control_plane.admission import bounded_json
from control_plane.admission.archive import Archive, member_names, open_archive
from control_plane.admission.base import Accepted, Received, Refusal
from control_plane.admission.formats import export_graph, export_samples
from control_plane.admission.reasons import ReasonCode

MARKS: Final = frozenset({"archive_format", "archive_version", "serialized_exported_program.json"})
MAX_SMALL_BYTES: Final = 1024 * 1024
MEMBER: Final = re.compile(
    r"models/[\w-]+\.json|data/weights/(weight_\d+|[\w-]+_weights_config\.json)"
    r"|data/constants/(tensor_\d+|[\w-]+_constants_config\.json)|data/sample_inputs/[\w-]+\.pt"
    r"|archive_format|archive_version|byteorder|version|\.data/(version|serialization_id)"
    r"|\.format_version|\.storage_alignment|extra/[^/]+"
)
"""All that torch.export.save writes for a program of plain tensors."""
COMPILED: Final = re.compile(r"data/aotinductor/.*|.*\.(so|o|a|dll|dylib|cubin|ptx|cpp|cu)")
PICKLED: Final = re.compile(r"data/constants/(custom|opaque)_obj_.*")
SAVE_AGAIN: Final = "Save it again with torch.export.save(torch.export.export(model.eval(), (x,)), path)."


class ExportedProgram:
    """Lets torch.export programs in after a person accepted to run them."""

    name = "exported_program"

    def recognises(self, received: Received) -> bool:
        """Tell whether the only file is a zip with an exported program's members."""
        return not MARKS.isdisjoint(member_names(received))

    def read(self, received: Received) -> Accepted:
        """Read the signature; sizes that vary are -1."""
        (file,) = received
        with open_archive(file) as archive:
            _check_members(archive)
            archive.verify()
            _check_payloads(archive)
            program = _program(archive)
        return Accepted(
            format=self.name,
            handler="tensor",
            signature=export_graph.signature(program, file.path),
            program=True,
            code=ReasonCode.PROGRAM,
            needs=("acceptance",),
            stored=(("model.pt2", file.path),),
        )


def _check_members(archive: Archive) -> None:
    if "serialized_exported_program.json" in archive:
        raise Refusal(
            ReasonCode.OLD_EXPORTED_PROGRAM,
            f"{archive.file} was saved by torch 2.7 or older, which pickles the weights",
            f"Load it where you trust it, with torch 2.8 or later. {SAVE_AGAIN}",
            file=archive.file,
        )
    for name in archive.names:
        if MEMBER.fullmatch(name) is None:
            raise _unexpected(archive.file, name)


def _unexpected(file: str, name: str) -> Refusal:
    if COMPILED.fullmatch(name):
        code, what = ReasonCode.NATIVE_CODE, "compiled code, which cannot be checked"
    elif PICKLED.fullmatch(name):
        code, what = ReasonCode.UNEXPECTED_PICKLE, "a pickled object, which runs code when it is loaded"
    else:
        code, what = ReasonCode.UNEXPECTED_MEMBER, "a file that torch.export.save does not write"
    return Refusal(code, f"{file} holds {name[:120]}: {what}", SAVE_AGAIN, file=file)


def _check_payloads(archive: Archive) -> None:
    """Check that weights and constants are raw bytes and sample inputs are plain tensors."""
    for name in archive.names:
        if name.endswith("_config.json"):
            _check_config(archive, name)
        elif name.startswith("data/sample_inputs/"):
            export_samples.check(archive.read(name, bounded_json.MAX_BYTES), archive.file)


def _check_config(archive: Archive, name: str) -> None:
    config = bounded_json.parse(archive.read(name, bounded_json.MAX_BYTES), name).get("config")
    entries = config.values() if isinstance(config, dict) else [None]
    for entry in entries:
        path = entry.get("path_name") if isinstance(entry, dict) else None
        folder = name.rpartition("/")[0]
        if not isinstance(entry, dict) or f"{folder}/{path}" not in archive:
            raise export_graph.broken(archive.file, f"{name} names a payload that is not there")
        if entry.get("use_pickle") is not False:
            raise Refusal(
                ReasonCode.UNEXPECTED_PICKLE,
                f"{archive.file} holds the pickled tensor {path}; only raw tensors are loaded",
                "Turn quantised or distributed weights into plain tensors before the export.",
                file=archive.file,
            )


def _program(archive: Archive) -> dict[str, Any]:
    models = [name for name in archive.names if name.startswith("models/")]
    if len(models) != 1 or "archive_version" not in archive:
        raise export_graph.broken(archive.file, f"it holds {len(models)} programs; one is served")
    if archive.read("archive_version", MAX_SMALL_BYTES) != b"0":
        raise export_graph.broken(archive.file, "its archive version is not 0")
    return bounded_json.parse(archive.read(models[0], bounded_json.MAX_BYTES), models[0])


FORMAT: Final = ExportedProgram()
