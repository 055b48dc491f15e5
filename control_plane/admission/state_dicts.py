"""State dicts as torch.save writes them, found without unpickling: the zip of torch 1.6 and the form before.

Zip: `data.pkl` with storages as members `data/<key>` (torch/serialization.py, `_save`). Before: five pickles
(magic number, protocol, system facts, the object, list of storage keys), then each storage with its number of
elements in 8 bytes before it (`_legacy_save`). Nothing may follow.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from control_plane.admission import coverage, inert_globals, state_dict_choice
from control_plane.admission.archive import Archive, broken, looks_like_zip, open_archive
from control_plane.admission.base import LeftOut, ReceivedFile, Refusal
from control_plane.admission.pickle_symbols import (
    Call,
    Global,
    Items,
    Machine,
    NotAPickleError,
    Persistent,
    walk,
)
from control_plane.admission.pickled_tensors import MalformedError, NotPlain, StorageKey, View, storage_key
from control_plane.admission.reasons import ReasonCode
from control_plane.admission.state_dict_choice import AmbiguousError, Choice, SameNameError, TooLargeError
from control_plane.admission.tensors import Piece, SourceTensor, Storage

MAX_PICKLE_BYTES: Final = 64 * 1024 * 1024
LEGACY_HEADER: Final = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""torch's magic number, pickled: how torch.save began before torch 1.6."""
LEGACY_PROTOCOL: Final = 1001
COUNT_BYTES: Final = 8
MAX_LISTED: Final = 200
"""Things left out that are named one by one."""
FREE_STEPS: Final = 100_000
STEPS_PER_BYTE: Final = 4
MEMBER: Final = re.compile(
    r"data\.pkl|version|byteorder|\.data/serialization_id|\.format_version|\.storage_alignment|data/[^/]+"
)
"""All that torch.save writes."""
SMALL_MEMBER_BYTES: Final = 4096
SAVE_STATE_DICT: Final = (
    "Save its weights instead: torch.save(model.state_dict(), 'model.pt'). Or a program: "
    "torch.export.save(torch.export.export(model.eval(), (example,)), 'model.pt2')."
)
SAVE_AGAIN: Final = "Save the weights again and check that the whole file was copied."
SAVE_PLAIN: Final = (
    "Save plain tensors: .dequantize(), .to_dense(), .resolve_conj() or .to(torch.complex64) those first, "
    "and move them to the CPU before torch.save."
)
SAVE_LITTLE: Final = "Load it with torch.load on a little-endian machine (x86, ARM) and save it again there."


@dataclass(frozen=True, slots=True)
class StateDict:
    """The weights in one file."""

    tensors: tuple[SourceTensor, ...]
    """By name, sorted; checked by `coverage`."""
    left_out: tuple[LeftOut, ...]
    """What the file holds besides."""


def is_state_dict(file: ReceivedFile, members: Iterable[str]) -> bool:
    """Tell whether *file*, with the *members* if it is an archive, means to be what torch.save writes."""
    names = set(members)
    if names:
        packaged = any(name.startswith(".data/extern_modules") for name in names)
        return "data.pkl" in names and "constants.pkl" not in names and not packaged
    return file.head(len(LEGACY_HEADER)) == LEGACY_HEADER


def read(file: ReceivedFile) -> StateDict:
    """Find the weights in *file*. Raises Refusal, also where it pickles more than plain data and tensors."""
    return _read_zip(file) if looks_like_zip(file) else _read_legacy(file)


def _read_zip(file: ReceivedFile) -> StateDict:
    with open_archive(file) as archive:
        _check_members(archive)
        data = archive.read("data.pkl", MAX_PICKLE_BYTES)
        machine, (root,) = _follow(data, 1, file)

        def find(key: StorageKey) -> Storage | None:
            name = f"data/{key.key}"
            return archive.storage(name) if name in archive else None

        return _weights(root, find, file, len(machine.data))


def _check_members(archive: Archive) -> None:
    for name in archive.names:
        if MEMBER.fullmatch(name) is None:
            raise Refusal(
                ReasonCode.UNEXPECTED_MEMBER,
                f"{archive.file} holds {name[:120]}, which torch.save does not write",
                SAVE_STATE_DICT,
                file=archive.file,
                member=name[:120],
            )
        if not name.startswith("data/") and name != "data.pkl":
            archive.read(name, SMALL_MEMBER_BYTES)
    if "data.pkl" not in archive:
        raise broken(archive.file, "data.pkl is missing")
    if "byteorder" in archive and archive.read("byteorder", SMALL_MEMBER_BYTES) != b"little":
        raise _big_endian(archive.file)


def _read_legacy(file: ReceivedFile) -> StateDict:
    data = file.head(MAX_PICKLE_BYTES)
    machine, (_, protocol, facts, root, keys) = _follow(data, 5, file)
    if protocol != LEGACY_PROTOCOL:
        raise _damaged(file, "it is of an unknown protocol")
    if not isinstance(facts, Items) or facts.get("little_endian") is not True:
        raise _big_endian(file.path)
    storages = _legacy_storages(file, machine.offset, keys, root)
    return _weights(root, lambda key: storages.get(key.key), file, machine.offset)


def _legacy_storages(file: ReceivedFile, position: int, keys: Any, root: Any) -> dict[str, Storage]:
    """Return where each storage lies; they follow one another to the file's end."""
    sizes = _item_sizes(root, file)
    if not isinstance(keys, list) or not all(isinstance(key, str) and key in sizes for key in keys):
        raise _damaged(file, "its list of storages does not fit its content")
    if len(set(keys)) != len(keys):
        raise _damaged(file, "it lists a storage twice")
    storages = {}
    with file.location.open("rb") as raw:
        for key in keys:
            raw.seek(position)
            count = int.from_bytes(raw.read(COUNT_BYTES), "little", signed=True)
            size = count * sizes[key]
            position += COUNT_BYTES
            if not 0 <= size <= file.size_bytes - position:
                raise _damaged(file, "it is cut")
            storages[key] = Storage(file.location, position, size)
            position += size
    if position != file.size_bytes:
        raise _damaged(file, "other data follows the weights")
    return storages


def _item_sizes(root: Any, file: ReceivedFile) -> dict[str, int]:
    """Return the element size of each storage of *root*; the first reference decides, as in torch."""
    sizes: dict[str, int] = {}
    for value in walk(root):
        if isinstance(value, Persistent):
            try:
                found = storage_key(value)
            except MalformedError as error:
                raise _damaged(file, str(error)) from None
            if isinstance(found, NotPlain):
                raise _not_plain(file, "", found.why)
            sizes.setdefault(found.key, found.item_bytes)
    return sizes


def _follow(data: bytes, count: int, file: ReceivedFile) -> tuple[Machine, list[Any]]:
    """Follow *count* pickles; refuse what names or calls more than plain data and tensors."""
    machine = Machine(data)
    try:
        roots = [machine.run() for _ in range(count)]
    except NotAPickleError as error:
        raise _damaged(file, str(error)) from None
    foreign = _foreign(machine, roots)
    if foreign is not None or machine.calls_results:
        raise _module(file, _class_of(roots[min(count - 1, 3)]) or str(foreign or "something computed"))
    return machine, roots


def _foreign(machine: Machine, roots: list[Any]) -> Global | None:
    """Return the first thing named that plain data and tensors have no use for."""
    found = dict.fromkeys(each for each in machine.globals if not inert_globals.is_inert(each))
    if any(map(inert_globals.is_inert_name, found)):
        functions = (value.function for value in walk(roots) if isinstance(value, Call))
        called = {function for function in functions if isinstance(function, Global)}
        return next((each for each in found if each in called or not inert_globals.is_inert_name(each)), None)
    return next(iter(found), None)


def _class_of(root: Any) -> str | None:
    """Return the class of a pickled object, where that is what makes the file no state dict."""
    function = root.function if isinstance(root, Call) else None
    if not isinstance(function, Global) or inert_globals.is_inert(function):
        return None
    return str(function)


def _weights(
    root: Any, find: Callable[[StorageKey], Storage | None], file: ReceivedFile, pickle_bytes: int
) -> StateDict:
    try:
        choice = state_dict_choice.choose(root, FREE_STEPS + STEPS_PER_BYTE * pickle_bytes)
        tensors = tuple(_source(name, choice.views[name], find) for name in sorted(choice.views))
    except MalformedError as error:
        raise _damaged(file, str(error)) from None
    except SameNameError as error:
        raise _damaged(file, f"two tensors are called {str(error)[:80]!r}") from None
    except AmbiguousError as error:
        raise _ambiguous(file, *map(_shown, error.args)) from None
    except TooLargeError as error:
        raise Refusal(
            ReasonCode.TOO_LARGE_TO_READ, f"{file.path} cannot be read: {error}", SAVE_AGAIN, file=file.path
        ) from None
    if choice.not_plain:
        raise _not_all_plain(file, choice)
    if not tensors:
        raise _nothing(file, choice)
    coverage.check(tensors, file.path)
    return StateDict(tensors, _left_out(choice, file))


def _source(name: str, view: View, find: Callable[[StorageKey], Storage | None]) -> SourceTensor:
    storage = find(view.storage)
    if storage is None:
        raise MalformedError(f"the data of {name[:120]} is missing")
    if storage.size_bytes != view.storage.size_bytes and not view.storage.first:
        raise MalformedError(f"the data of {name[:120]} has another size than it says")
    piece = Piece(storage, view.start, view.shape, view.strides, (0,) * len(view.shape))
    return SourceTensor(name, view.dtype, view.shape, (piece,))


def _left_out(choice: Choice, file: ReceivedFile) -> tuple[LeftOut, ...]:
    seen: set[int] = set()
    found = []
    for key, why, value in choice.left_out:
        size = min(_held_bytes(value, seen), file.size_bytes)  # whatever sizes it claims to have
        found.append(LeftOut(f"{file.path}!/{_shown(key)}", size, why))
    if len(found) <= MAX_LISTED:
        return tuple(found)
    rest = found[MAX_LISTED:]
    size = min(sum(each.size_bytes for each in rest), file.size_bytes)
    more = LeftOut(f"{file.path}!/", size, f"{len(rest)} more entries")
    return (*found[:MAX_LISTED], more)


def _shown(key: str) -> str:
    """Return *key* fit for display."""
    return key[:200] if key.isprintable() else repr(key[:200])[1:-1]


def _held_bytes(value: Any, seen: set[int]) -> int:
    """Return the bytes of the storages below *value* that were not counted before."""
    total = 0
    for held in walk(value, seen):
        if isinstance(held, Persistent):
            try:
                key = storage_key(held)
            except MalformedError:
                continue
            total += key.size_bytes if isinstance(key, StorageKey) else 0
    return total


def _nothing(file: ReceivedFile, choice: Choice) -> Refusal:
    optimiser = any(why == "optimiser state" for _, why, _ in choice.left_out)
    return Refusal(
        ReasonCode.NO_TENSORS,
        f"{file.path} holds no weights" + (", only an optimiser's state" if optimiser else ""),
        "Upload the file with the model's state dict: torch.save(model.state_dict(), 'model.pt').",
        file=file.path,
    )


def _not_all_plain(file: ReceivedFile, choice: Choice) -> Refusal:
    """Return the refusal of weights of which some would be lost."""
    (name, why), *more = sorted(choice.not_plain.items())
    also = [_shown(other)[:60] for other, _ in more[:3]]
    rest = f"; also {', '.join(also)}" if also else ""
    rest += f" and {len(more) - len(also)} more" if len(more) > len(also) else ""
    return _not_plain(file, _shown(name), why, rest)


def _ambiguous(file: ReceivedFile, name: str, nest: str) -> Refusal:
    return Refusal(
        ReasonCode.UNSUPPORTED_TENSOR,
        f"{file.path} holds the tensor {name} beside {nest!r}, which holds others: "
        "it does not say whether they are one network",
        "Save one state dict, torch.save(model.state_dict(), 'model.pt'), "
        "or remove the tensors beside it that are no weights.",
        file=file.path,
        member=name,
    )


def _not_plain(file: ReceivedFile, name: str, why: str, rest: str = "") -> Refusal:
    return Refusal(
        ReasonCode.UNSUPPORTED_TENSOR,
        f"{file.path} holds a {why}" + (f": {name[:120]}{rest}" if name else ""),
        SAVE_PLAIN,
        file=file.path,
        member=name[:120] or None,
    )


def _module(file: ReceivedFile, what: str) -> Refusal:
    return Refusal(
        ReasonCode.FULL_MODULE_PICKLE,
        f"{file.path} pickles {what[:120]}, which runs code when it is loaded",
        SAVE_STATE_DICT,
        file=file.path,
        member=what[:120],
    )


def _big_endian(file: str) -> Refusal:
    return Refusal(ReasonCode.BIG_ENDIAN, f"{file} was saved on a big-endian machine", SAVE_LITTLE, file=file)


def _damaged(file: ReceivedFile, why: str) -> Refusal:
    return Refusal(
        ReasonCode.BROKEN_WEIGHTS,
        f"{file.path} is not a whole file of weights: {why[:200]}",
        SAVE_AGAIN,
        file=file.path,
    )
