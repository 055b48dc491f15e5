"""ONNX: a program as a protocol-buffer graph, with its large tensors beside it where they are external.

Schema: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto; its field numbers stand below. Runtimes open
what `external_data` names, and load native code for operators of other domains, so both are looked at.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final

from control_plane.admission.base import Accepted, Received, ReceivedFile, Refusal
from control_plane.admission.protobuf_walk import Span, Walker
from control_plane.admission.reasons import ReasonCode
from serving_agent.contract.signature import Signature, TensorSpec

MODEL_GRAPH, MODEL_FUNCTIONS, MODEL_TRAINING = 7, 25, 20
GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_INPUT, GRAPH_OUTPUT, GRAPH_SPARSE = 1, 5, 11, 12, 15
NODE_OPERATOR, NODE_ATTRIBUTE, NODE_DOMAIN = 4, 5, 7
FUNCTION_NAME, FUNCTION_ATTRIBUTE, FUNCTION_NODE, FUNCTION_DOMAIN = 1, 11, 7, 10
TRAINING_GRAPHS: Final = (1, 2)
TENSOR_NAME, TENSOR_EXTERNAL = 8, 13
GRAPH_ATTRIBUTES: Final = (6, 11)
TENSOR_ATTRIBUTES: Final = (5, 10)
SPARSE_ATTRIBUTES: Final = (22, 23)
STANDARD: Final = frozenset({"", "ai.onnx", "ai.onnx.ml"})
"""Domains of operators that every runtime brings itself."""
DATATYPES: Final = {
    1: "FP32", 2: "UINT8", 3: "INT8", 4: "UINT16", 5: "INT16", 6: "INT32", 7: "INT64", 9: "BOOL", 10: "FP16",
    11: "FP64", 12: "UINT32", 13: "UINT64", 16: "BF16",
}  # fmt: skip
"""TensorProto.DataType → the protocol's element type."""
STORED: Final = "model.onnx"
"""Name of the model in the artefact; its external files keep theirs."""
SAVE_AGAIN: Final = "Export the model again with torch.onnx.export, with all its files in one folder."


@dataclass
class _Found:
    """What a model refers to beyond its own bytes."""

    operators: set[tuple[str, str]] = field(default_factory=set)
    """(domain, operator)."""
    functions: set[tuple[str, str]] = field(default_factory=set)
    """Operators that the model itself defines."""
    external: set[str] = field(default_factory=set)
    graph: Span | None = None


class Onnx:
    """Lets ONNX programs in after a person accepted to run them."""

    name = "onnx"

    def recognises(self, received: Received) -> bool:
        """Tell whether exactly one file is called `.onnx`, and no Hugging Face folder surrounds it."""
        models = [file for file in received if file.name.lower().endswith(".onnx")]
        return len(models) == 1 and all(file.name != "config.json" for file in received)

    def read(self, received: Received) -> Accepted:
        """Check operators and external files, and read the signature where it can be told."""
        (model,) = (file for file in received if file.name.lower().endswith(".onnx"))
        with model.location.open("rb") as raw, mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ) as data:
            walker = Walker(data)
            try:
                found = _walk_model(walker, (0, len(data)))
                signature = _signature(walker, found.graph) if found.graph else None
            except ValueError as error:  # malformed, or names that do not differ
                raise _broken(model, str(error)) from None
        if found.graph is None:
            raise _broken(model, "it holds no graph")
        _check_operators(found, model)
        beside = _external_files(found, model, received)
        return Accepted(
            format=self.name,
            handler="tensor",
            signature=signature,
            program=True,
            code=ReasonCode.PROGRAM,
            needs=("acceptance",) if signature else ("acceptance", "signature"),
            stored=((STORED, model.path), *beside),
        )


def _walk_model(walker: Walker, span: Span) -> _Found:
    """Return all that the model refers to, in nested graphs and its own functions too."""
    found = _Found()
    waiting: list[tuple[str, Span]] = []
    for number, value in walker.fields(span):
        if isinstance(value, int):
            continue
        if number == MODEL_GRAPH:
            found.graph = value
        if number in PARTS["model"]:
            waiting.append((PARTS["model"][number], value))
    while waiting:
        kind, inner = waiting.pop()
        waiting.extend(_parts(walker, kind, inner, found))
    return found


PARTS: Final[dict[str, dict[int, str]]] = {
    "model": {MODEL_GRAPH: "graph", MODEL_FUNCTIONS: "function", MODEL_TRAINING: "training"},
    "training": dict.fromkeys(TRAINING_GRAPHS, "graph"),
    "graph": {GRAPH_NODE: "node", GRAPH_INITIALIZER: "tensor", GRAPH_SPARSE: "sparse"},
    "function": {FUNCTION_NODE: "node", FUNCTION_ATTRIBUTE: "attribute"},
    "node": {NODE_ATTRIBUTE: "attribute"},
    "attribute": {
        **dict.fromkeys(GRAPH_ATTRIBUTES, "graph"),
        **dict.fromkeys(TENSOR_ATTRIBUTES, "tensor"),
        **dict.fromkeys(SPARSE_ATTRIBUTES, "sparse"),
    },
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {TENSOR_EXTERNAL: "external"},
}
"""Kind of message → its fields that hold further messages to look at, and their kind."""
NAMES: Final = {"node": (NODE_DOMAIN, NODE_OPERATOR), "function": (FUNCTION_DOMAIN, FUNCTION_NAME)}


def _parts(walker: Walker, kind: str, span: Span, found: _Found) -> Iterator[tuple[str, Span]]:
    """Yield the parts of a message that must be looked at, and note what it names itself."""
    if kind == "external":
        found.external |= _location(walker, span)
        return
    said: dict[int, str] = {}
    wanted = NAMES.get(kind, ())
    for number, value in walker.fields(span):
        if isinstance(value, int):
            continue
        if number in PARTS[kind]:
            yield PARTS[kind][number], value
        elif number in wanted:
            said[number] = walker.text(value)
    if wanted:
        domain, name = (said.get(number, "") for number in wanted)
        (found.operators if kind == "node" else found.functions).add((domain, name))


def _location(walker: Walker, span: Span) -> set[str]:
    """Return the file that an entry {key 1, value 2} of external_data names."""
    entry = {
        number: walker.text(value) for number, value in walker.fields(span) if not isinstance(value, int)
    }
    return {entry.get(2, "")} if entry.get(1) == "location" else set()


def _check_operators(found: _Found, model: ReceivedFile) -> None:
    foreign = sorted(
        (domain, name) for domain, name in found.operators - found.functions if domain not in STANDARD
    )
    if foreign:
        domain, name = foreign[0]
        raise Refusal(
            ReasonCode.FOREIGN_OPERATOR,
            f"{model.path} calls {domain[:80]!a}.{name[:80]!a}, an operator with code of its own",
            "Export the model with the standard operators of ONNX alone.",
            file=model.path,
            member=f"{domain[:80]}.{name[:80]}",
        )


def _external_files(found: _Found, model: ReceivedFile, received: Received) -> tuple[tuple[str, str], ...]:
    """Return (name in the artefact, path) of the files that hold external tensors. Raises Refusal."""
    folder = model.path.removesuffix(model.name)
    by_path = {file.path: file for file in received}
    for location in sorted(found.external):
        parts = PurePosixPath(location).parts
        plain = (
            location.isprintable() and not {"\\", ":", "*"} & set(location) and location not in ("", STORED)
        )
        if not plain or location.startswith("/") or ".." in parts or folder + location not in by_path:
            raise Refusal(
                ReasonCode.EXTERNAL_DATA,
                f"{model.path} takes tensors from {location[:120]!a}, which is not a file of the upload",
                SAVE_AGAIN,
                file=model.path,
                member=location[:200],
            )
    stray = sorted(set(by_path) - {model.path} - {folder + location for location in found.external})
    if stray:
        raise Refusal(
            ReasonCode.UNEXPECTED_FILE,
            f"{stray[0]} is not part of the ONNX model {model.path}",
            f"Remove it from the folder. {SAVE_AGAIN}",
            file=stray[0],
        )
    return tuple((location, folder + location) for location in sorted(found.external))


def _signature(walker: Walker, graph: Span) -> Signature | None:
    """Return inputs (those that no initializer fills) and outputs, none where one of these cannot be told.

    None where an input cannot be told: then a person must.
    """
    held: dict[int, list[Span]] = {GRAPH_INITIALIZER: [], GRAPH_INPUT: [], GRAPH_OUTPUT: []}
    for number, value in walker.fields(graph):
        if number in held and not isinstance(value, int):
            held[number].append(value)
    filled = {_text_field(walker, span, TENSOR_NAME) for span in held[GRAPH_INITIALIZER]}
    inputs = [_spec(walker, span) for span in held[GRAPH_INPUT] if _text_field(walker, span, 1) not in filled]
    outputs = [_spec(walker, span) for span in held[GRAPH_OUTPUT]]
    taken = tuple(spec for spec in inputs if spec)
    given = tuple(spec for spec in outputs if spec)
    if not inputs or len(taken) < len(inputs):
        return None
    return Signature(inputs=taken, outputs=given if len(given) == len(outputs) else ())


def _spec(walker: Walker, span: Span) -> TensorSpec | None:
    """Return the tensor that a ValueInfoProto describes: name 1, type 2 {tensor_type 1 {type 1, shape 2}}."""
    name = _text_field(walker, span, 1)
    tensor = _inner(walker, _inner(walker, span, 2), 1)
    fields = dict(walker.fields(tensor)) if tensor else {}
    shape, kind = fields.get(2), fields.get(1)
    datatype = DATATYPES.get(kind) if isinstance(kind, int) else None
    if not name or datatype is None or not isinstance(shape, tuple):
        return None
    return TensorSpec(name, datatype, tuple(_sizes(walker, shape)))


def _sizes(walker: Walker, shape: Span) -> Iterator[int]:
    """Yield each dimension's size {value 1, name 2}, -1 where it is open."""
    for number, value in walker.fields(shape):
        if number == 1 and not isinstance(value, int):
            size = dict(walker.fields(value)).get(1)
            yield size if isinstance(size, int) and 0 < size < 1 << 40 else -1


def _inner(walker: Walker, span: Span | None, wanted: int) -> Span | None:
    found = [value for number, value in walker.fields(span or (0, 0)) if number == wanted]
    return found[-1] if found and isinstance(found[-1], tuple) else None


def _text_field(walker: Walker, span: Span, wanted: int) -> str:
    found = _inner(walker, span, wanted)
    return walker.text(found) if found else ""


def _broken(model: ReceivedFile, why: str) -> Refusal:
    return Refusal(
        ReasonCode.BROKEN_PROGRAM,
        f"{model.path} is not a whole ONNX model: {why}",
        SAVE_AGAIN,
        file=model.path,
    )


FORMAT: Final = Onnx()
