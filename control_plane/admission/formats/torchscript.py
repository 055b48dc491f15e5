"""TorchScript: one zip written by torch.jit.save, a program whose source text says its arguments.

Layout: torch/csrc/jit/docs/serialization.md. The module's class is the first import of `data.pkl`; its source
lies in `code/`, one file per Python module of the original.
"""

from __future__ import annotations

import re
from typing import Final

from control_plane.admission.archive import Archive, member_names, open_archive
from control_plane.admission.base import Accepted, Received, Refusal
from control_plane.admission.formats import script_source
from control_plane.admission.pickle_symbols import Call, Items, Machine, NotAPickleError
from control_plane.admission.pickled_tensors import tensor_type
from control_plane.admission.reasons import ReasonCode
from serving_agent.contract.signature import Signature, TensorSpec

MAX_PICKLE_BYTES: Final = 64 * 1024 * 1024
MAX_SOURCE_BYTES: Final = 16 * 1024 * 1024
MEMBER: Final = re.compile(
    r"(constants|data|attributes|bytecode|mobile_debug_handles|traced_inputs)\.pkl|version|byteorder"
    r"|\.data/(serialization_id|version)|\.format_version|\.storage_alignment"
    r"|(data|constants|tensors|traced_inputs|extra)/[^/]+|code/.+\.(py|debug_pkl)"
)
"""All that torch.jit.save writes."""
DEFAULT_SHAPE: Final = (-1,)


class TorchScript:
    """Lets TorchScript in after a person accepted to run it."""

    name = "torchscript"

    def recognises(self, received: Received) -> bool:
        """Tell whether the only file is a zip with TorchScript's members."""
        names = member_names(received)
        return "constants.pkl" in names and any(name.startswith("code/") for name in names)

    def read(self, received: Received) -> Accepted:
        """Read the arguments of `forward`; element types and shapes only where a trace recorded them."""
        (file,) = received
        with open_archive(file) as archive:
            _check_members(archive)
            archive.verify()
            names = _tensor_arguments(archive)
            traced = _traced_inputs(archive, names)
        guessed = tuple(TensorSpec(name, "FP32", DEFAULT_SHAPE) for name in names)
        return Accepted(
            format=self.name,
            handler="tensor",
            signature=Signature(inputs=traced or guessed, outputs=()),
            program=True,
            code=ReasonCode.PROGRAM,
            needs=("acceptance",) if traced else ("acceptance", "signature"),
            stored=(("model.pt", file.path),),
        )


def _check_members(archive: Archive) -> None:
    for name in archive.names:
        if MEMBER.fullmatch(name) is None:
            raise Refusal(
                ReasonCode.UNEXPECTED_MEMBER,
                f"{archive.file} holds {name[:120]}, which torch.jit.save does not write",
                "Save the module again with torch.jit.save(module, path).",
                file=archive.file,
            )
        if name.startswith("code/") and name.endswith(".py"):
            _check_source(archive, name)


def _check_source(archive: Archive, name: str) -> None:
    try:
        operator = script_source.file_operator(_source(archive, name))
    except script_source.UnusualSourceError as error:
        raise _broken(archive, f"{name}: {error}") from None
    if operator:
        raise Refusal(
            ReasonCode.FILE_ACCESS,
            f"{archive.file} reads or writes files of the machine it runs on ({operator} in {name})",
            "Remove file operators from the model and save it again.",
            file=archive.file,
        )


def _source(archive: Archive, name: str) -> str:
    return archive.read(name, MAX_SOURCE_BYTES).decode("utf-8", "replace")


def _tensor_arguments(archive: Archive) -> tuple[str, ...]:
    """Return the names of the tensors that `forward` must be given."""
    module, _, class_name = _root_class(archive).rpartition(".")
    path = f"code/{module.replace('.', '/')}.py"
    if path not in archive:
        raise _broken(archive, f"the source of its class {class_name[:80]} is missing")
    arguments = script_source.forward_arguments(_source(archive, path), class_name)
    if arguments is None:
        raise Refusal(
            ReasonCode.NO_FORWARD,
            f"{archive.file} has no method `forward` that could be called",
            "Give the module a forward(self, ...) method and save it again with torch.jit.save.",
            file=archive.file,
        )
    required = [argument for argument in arguments if not argument.has_default]
    wrong = [argument for argument in required if argument.type != "Tensor"]
    if wrong or not required:
        raise Refusal(
            ReasonCode.UNSUPPORTED_ARGUMENTS,
            f"forward of {archive.file} takes {_listed(wrong) or 'no tensor'}; "
            "only tensors can be sent to an endpoint",
            "Wrap the module so that forward(self, ...) takes tensors only, and save it again.",
            file=archive.file,
        )
    return tuple(argument.name for argument in required)


def _listed(arguments: list[script_source.Argument]) -> str:
    return ", ".join(f"{argument.name}: {argument.type}"[:80] for argument in arguments[:4])


def _root_class(archive: Archive) -> str:
    machine = _follow(archive, "data.pkl")
    root = machine.globals[0] if machine and machine.globals else None
    if root is None or not root.module.startswith("__torch__"):
        raise _broken(archive, "data.pkl does not name a module's class")
    return f"{root.module}.{root.name}"


def _follow(archive: Archive, name: str) -> Machine | None:
    machine = Machine(archive.read(name, MAX_PICKLE_BYTES)) if name in archive else None
    try:
        if machine:
            machine.run()
    except NotAPickleError as error:
        raise _broken(archive, f"{name}: {error}") from None
    return machine


def _traced_inputs(archive: Archive, names: tuple[str, ...]) -> tuple[TensorSpec, ...] | None:
    """Return what torch.jit.trace was given, with any batch size, or None where that is not recorded."""
    if "traced_inputs.pkl" not in archive:
        return None
    try:
        recorded = Machine(archive.read("traced_inputs.pkl", MAX_PICKLE_BYTES)).run()
    except NotAPickleError:
        return None
    types = [tensor_type(value) for value in _untagged_list(recorded)]
    if len(types) != len(names):
        return None
    known = [_batched(name, *type_) for name, type_ in zip(names, types, strict=True) if type_]
    specs = tuple(spec for spec in known if spec)
    return specs if len(specs) == len(names) else None


def _untagged_list(recorded: object) -> list[object]:
    """Return the arguments of `forward` in `restore_type_tag({"forward": restore_type_tag([...], _)}, _)`."""
    methods = _untagged(recorded)
    arguments = _untagged(methods.get("forward")) if isinstance(methods, Items) else None
    return arguments if isinstance(arguments, list) else []


def _untagged(value: object) -> object:
    if isinstance(value, Call) and isinstance(value.arguments, tuple) and value.arguments:
        return value.arguments[0]
    return value


def _batched(name: str, datatype: str, shape: tuple[int, ...]) -> TensorSpec | None:
    if not shape or min(shape) < 1:
        return None
    return TensorSpec(name, datatype, (-1, *shape[1:]))


def _broken(archive: Archive, why: str) -> Refusal:
    return Refusal(
        ReasonCode.BROKEN_PROGRAM,
        f"{archive.file} is not a whole TorchScript program: {why}",
        "Save the module again with torch.jit.save(module, path).",
        file=archive.file,
    )


FORMAT: Final = TorchScript()
