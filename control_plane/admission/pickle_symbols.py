"""A symbolic pickle machine: tells what a pickle would build, and builds and calls nothing.

Opcodes as in CPython's Lib/pickletools.py, protocols 0 to 5. Globals become `Global`, calls become `Call`,
persistent ids become `Persistent`; everything else becomes the plain value. Imports no pickle.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

MAX_OPCODES: Final = 3_000_000
MAX_LONG_BYTES: Final = 1024


class NotAPickleError(ValueError):
    """The bytes are no pickle that we can follow."""


@dataclass(frozen=True, slots=True)
class Global:
    """Something a pickle imports."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False)
class Call:
    """Something a pickle calls, and what it gives the result: its state, list items, dict items."""

    function: Any
    arguments: Any
    state: Any = None
    values: list[Any] | None = None
    pairs: list[tuple[Any, Any]] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Persistent:
    """A reference to something outside the pickle, such as a tensor's storage."""

    identity: Any


@dataclass(slots=True, eq=False)
class Items:
    """A dict as its pairs in order: keys of hostile pickles need not be hashable."""

    pairs: list[tuple[Any, Any]] = field(default_factory=list)

    def get(self, key: str) -> Any:
        """Return the last value under *key*, or None."""
        return next((value for known, value in reversed(self.pairs) if known == key), None)


class _Mark:
    pass


MARK: Final = _Mark()
CONSTANTS: Final[dict[int, Any]] = {0x4E: None, 0x88: True, 0x89: False, 0x29: ()}
TEXT_LINES: Final = b"ILFSV"
U8, U16, U32, U64, I32, F64 = (struct.Struct(layout) for layout in ("<B", "<H", "<I", "<Q", "<i", ">d"))
FIXED: Final = {0x4B: U8, 0x4D: U16, 0x4A: I32, 0x47: F64, 0x82: U8, 0x83: U16, 0x84: I32}
"""Opcodes followed by one number of fixed size."""
COUNTED: Final = {
    0x55: U8, 0x43: U8, 0x8C: U8, 0x8A: U8, 0x54: U32, 0x42: U32, 0x58: U32, 0x8B: U32,
    0x8D: U64, 0x8E: U64, 0x96: U64,
}  # fmt: skip
"""Opcodes followed by a count and that many bytes."""
UNICODE: Final = frozenset({0x58, 0x8C, 0x8D})
OLD_TEXT: Final = frozenset({0x54, 0x55})
"""What Python 2 wrote for str."""
LONGS: Final = frozenset({0x8A, 0x8B})
MEMO_GET: Final = {0x68: U8, 0x6A: U32}
MEMO_PUT: Final = {0x71: U8, 0x72: U32}


class Machine:
    """Follows one pickle after another in *data*."""

    def __init__(self, data: bytes, offset: int = 0, max_steps: int = MAX_OPCODES) -> None:
        self.data = data
        self.offset = offset
        self.globals: list[Global] = []
        """Everything imported so far, in order, with repetitions."""
        self.calls_results = False
        """Whether anything but an import was called so far: the result of a call, a number."""
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._steps = 0
        self._max_steps = max_steps

    def run(self) -> Any:
        """Follow one pickle to its STOP and return what it stands for. Raises NotAPickleError."""
        self._stack, self._memo = [], {}
        try:
            while (opcode := self._byte()) != 0x2E:
                self._steps += 1
                if self._steps > self._max_steps:
                    raise NotAPickleError("it has too many instructions")
                self._step(opcode)
            return self._stack.pop()
        except (IndexError, struct.error, ValueError, TypeError, OverflowError, AttributeError) as error:
            raise NotAPickleError(str(error) or "it is malformed") from None

    def _step(self, opcode: int) -> None:
        if opcode in CONSTANTS:
            self._stack.append(CONSTANTS[opcode])
        elif opcode in FIXED:
            (value,) = self._unpack(FIXED[opcode])
            if opcode < 0x80:
                self._stack.append(value)
            else:
                self._import("copyreg", f"extension {value}")
        elif opcode in COUNTED:
            self._counted(opcode)
        elif opcode in TEXT_LINES:
            self._stack.append(_text_value(opcode, self._line()))
        elif opcode in MEMO_GET or opcode in MEMO_PUT:
            self._memory(opcode)
        else:
            action = ACTIONS.get(opcode)
            if action is None:
                raise NotAPickleError(f"it holds the unknown instruction {opcode:#x}")
            action(self)

    # reading

    def _byte(self) -> int:
        value = self.data[self.offset]
        self.offset += 1
        return value

    def _take(self, count: int) -> bytes:
        if count > len(self.data) - self.offset:
            raise NotAPickleError("it is cut")
        self.offset += count
        return self.data[self.offset - count : self.offset]

    def _unpack(self, layout: struct.Struct) -> tuple[Any, ...]:
        return layout.unpack(self._take(layout.size))

    def _line(self) -> bytes:
        end = self.data.index(b"\n", self.offset)
        line = self.data[self.offset : end]
        self.offset = end + 1
        return line

    def _counted(self, opcode: int) -> None:
        (count,) = self._unpack(COUNTED[opcode])
        raw = self._take(count)
        if opcode in UNICODE:
            self._stack.append(raw.decode("utf-8", "surrogatepass"))
        elif opcode in OLD_TEXT:
            self._stack.append(raw.decode("utf-8", "backslashreplace"))
        elif opcode in LONGS:
            self._stack.append(_long(raw))
        else:
            self._stack.append(raw)

    def _memory(self, opcode: int) -> None:
        if opcode in MEMO_GET:
            (key,) = self._unpack(MEMO_GET[opcode])
            self._stack.append(self._memo_at(key))
        else:
            (key,) = self._unpack(MEMO_PUT[opcode])
            self._memo[key] = self._stack[-1]

    def _memo_at(self, key: int) -> Any:
        if key not in self._memo:
            raise NotAPickleError("it recalls what it never stored")
        return self._memo[key]

    # actions without a fixed argument

    def _get_text(self) -> None:
        self._stack.append(self._memo_at(int(self._line())))

    def _put_text(self) -> None:
        self._memo[int(self._line())] = self._stack[-1]

    def _memoize(self) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _to_mark(self) -> list[Any]:
        index = len(self._stack) - 1
        while self._stack[index] is not MARK:
            index -= 1
            if index < 0:
                raise NotAPickleError("a mark is missing")
        values = self._stack[index + 1 :]
        del self._stack[index:]
        return values

    def _tuple_of(self, count: int) -> None:
        if len(self._stack) < count:
            raise NotAPickleError("its stack is empty")
        values = tuple(self._stack[-count:])
        del self._stack[-count:]
        self._stack.append(values)

    def _import(self, module: str, name: str) -> None:
        found = Global(module, name)
        self.globals.append(found)
        self._stack.append(found)

    def _global_line(self) -> None:
        module = self._line().decode()
        self._import(module, self._line().decode())

    def _stack_global(self) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._import(module if isinstance(module, str) else "?", name if isinstance(name, str) else "?")

    def _call(self, function: Any, arguments: Any) -> None:
        self.calls_results |= not isinstance(function, Global)
        self._stack.append(Call(function, arguments))

    def _reduce(self) -> None:
        arguments = self._stack.pop()
        self._call(self._stack.pop(), arguments)

    def _newobj_ex(self) -> None:
        keywords, arguments = self._stack.pop(), self._stack.pop()
        self._call(self._stack.pop(), (arguments, keywords))

    def _inst(self) -> None:
        self._global_line()
        function = self._stack.pop()
        self._call(function, tuple(self._to_mark()))

    def _obj(self) -> None:
        function, *arguments = self._to_mark()
        self._call(function, tuple(arguments))

    def _build(self) -> None:
        state = self._stack.pop()
        if not isinstance(self._stack[-1], Call):
            self._call(self._stack.pop(), ())
        self._stack[-1].state = state

    def _persistent_line(self) -> None:
        self._stack.append(Persistent(self._line().decode()))

    def _persistent(self) -> None:
        self._stack.append(Persistent(self._stack.pop()))

    def _append(self) -> None:
        value = self._stack.pop()
        self._extend([value])

    def _appends(self) -> None:
        self._extend(self._to_mark())

    def _extend(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, list):
            target.extend(values)
        elif isinstance(target, Call):
            target.values = _extended(target.values, values)
        else:
            raise NotAPickleError("it appends to what is no list")

    def _setitem(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set([(key, value)])

    def _setitems(self) -> None:
        self._set(_pairs(self._to_mark()))

    def _set(self, pairs: list[tuple[Any, Any]]) -> None:
        target = self._stack[-1]
        if isinstance(target, Items):
            target.pairs.extend(pairs)
        elif isinstance(target, Call):
            target.pairs = _extended(target.pairs, pairs)
        else:
            raise NotAPickleError("it sets items of what is no dict")


def _extended(known: list[Any] | None, more: list[Any]) -> list[Any]:
    """Return *known* with *more*, in place where there is a list already."""
    if known is None:
        return list(more)
    known.extend(more)
    return known


def _pairs(values: list[Any]) -> list[tuple[Any, Any]]:
    if len(values) % 2:
        raise NotAPickleError("a dict's value is missing")
    return list(zip(values[::2], values[1::2], strict=True))


def _long(raw: bytes) -> int:
    if len(raw) > MAX_LONG_BYTES:
        raise NotAPickleError("a number is too long")
    return int.from_bytes(raw, "little", signed=True)


def _text_value(opcode: int, line: bytes) -> Any:
    if len(line) > 4096 and opcode in b"ILF":
        raise NotAPickleError("a number is too long")
    if opcode == 0x49:  # I
        return {b"01": True, b"00": False}.get(line) if line in (b"00", b"01") else int(line)
    if opcode == 0x4C:  # L
        return int(line.rstrip(b"L"))
    if opcode == 0x46:  # F
        return float(line)
    return line.decode("raw-unicode-escape" if opcode == 0x56 else "latin-1")  # V, or S as it is written


ACTIONS: Final[dict[int, Callable[[Machine], object]]] = {
    0x28: lambda machine: machine._stack.append(MARK),
    0x30: lambda machine: machine._stack.pop(),
    0x31: Machine._to_mark,
    0x32: lambda machine: machine._stack.append(machine._stack[-1]),
    0x5D: lambda machine: machine._stack.append([]),
    0x7D: lambda machine: machine._stack.append(Items()),
    0x8F: lambda machine: machine._stack.append([]),
    0x74: lambda machine: machine._stack.append(tuple(machine._to_mark())),
    0x6C: lambda machine: machine._stack.append(machine._to_mark()),
    0x64: lambda machine: machine._stack.append(Items(_pairs(machine._to_mark()))),
    0x85: lambda machine: machine._tuple_of(1),
    0x86: lambda machine: machine._tuple_of(2),
    0x87: lambda machine: machine._tuple_of(3),
    0x61: Machine._append,
    0x65: Machine._appends,
    0x90: Machine._appends,
    0x91: lambda machine: machine._stack.append(machine._to_mark()),
    0x73: Machine._setitem,
    0x75: Machine._setitems,
    0x52: Machine._reduce,
    0x81: Machine._reduce,
    0x92: Machine._newobj_ex,
    0x69: Machine._inst,
    0x6F: Machine._obj,
    0x62: Machine._build,
    0x63: Machine._global_line,
    0x93: Machine._stack_global,
    0x67: Machine._get_text,
    0x70: Machine._put_text,
    0x94: Machine._memoize,
    0x50: Machine._persistent_line,
    0x51: Machine._persistent,
    0x80: lambda machine: machine._take(1),
    0x95: lambda machine: machine._take(8),
    0x97: lambda machine: machine._import("_pickle", "buffer"),
    0x98: lambda _machine: None,
}
"""Opcode → what it does to the machine."""


COMPOUND: Final = (list, tuple, Items, Call, Persistent)
"""Classes of values that refer to others."""


def walk(root: Any, seen: set[int] | None = None) -> Iterator[Any]:
    """Yield every value reachable from *root* once, without recursion.

    *seen* takes the identities of values that were passed, and is not passed again.
    """
    seen = set() if seen is None else seen
    waiting = [root]
    while waiting:
        value = waiting.pop()
        if isinstance(value, COMPOUND):
            if id(value) in seen:
                continue
            seen.add(id(value))
            waiting.extend(children(value))
        yield value


def children(value: Any) -> list[Any]:
    """Return the values that *value*, one of `COMPOUND`, refers to."""
    if isinstance(value, Items):
        return [item for pair in value.pairs for item in pair]
    if isinstance(value, Call):
        held = [value.function, value.arguments, value.state, *(value.values or ())]
        return held + [item for pair in value.pairs or () for item in pair]
    if isinstance(value, Persistent):
        return [value.identity]
    return list(value)
