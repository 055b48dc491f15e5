"""Small ONNX models, encoded by hand: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto."""

from __future__ import annotations


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number: int, value: int | bytes | str) -> bytes:
    """One field: a number, or bytes with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    raw = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(raw)) + raw


def value_info(name: str) -> bytes:
    """A float tensor called *name* of shape [batch, 4]."""
    shape = field(1, field(2, "batch")) + field(1, field(1, 4))
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, shape)))


def model(*, domain: str = "", external: str | None = None) -> bytes:
    """y = x + w, with *w* in a file beside the model where *external* names one."""
    node = field(1, "x") + field(1, "w") + field(2, "y") + field(4, "Add") + field(7, domain)
    tensor = field(1, 4) + field(2, 1) + field(8, "w")
    if external is None:
        tensor += field(9, bytes(16))
    else:
        tensor += field(13, field(1, "location") + field(2, external)) + field(14, 1)
    graph = field(1, node) + field(2, "main") + field(5, tensor)
    graph += field(11, value_info("x")) + field(12, value_info("y"))
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 17))


def nested(depth: int) -> bytes:
    """Graphs in attributes of nodes of graphs, *depth* times."""
    graph = b""
    for _ in range(depth):
        graph = field(1, field(4, "If") + field(5, field(1, "then_branch") + field(6, graph)))
    return field(1, 8) + field(7, graph)
