"""The JSON of an exported program: its signature, and the checks on everything torch would evaluate. Pure.

Schema: torch/_export/serde/schema.py. torch resolves each node's `target` by name, parses `expr_str` with
sympy (which evaluates it) and compiles `guards_code` as Python.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from typing import Any, Final

from control_plane.admission.base import Refusal
from control_plane.admission.reasons import ReasonCode
from serving_agent.contract.signature import Signature, TensorSpec

DATATYPE_OF_SCALAR_TYPE: Final = {
    1: "UINT8", 2: "INT8", 3: "INT16", 4: "INT32", 5: "INT64", 6: "FP16", 7: "FP32", 8: "FP64",
    12: "BOOL", 13: "BF16", 28: "UINT16", 34: "UINT32", 35: "UINT64",
}  # fmt: skip
"""torch._export.serde.schema.ScalarType → the protocol's element type."""
TARGET: Final = re.compile(
    r"torch\.ops\.(aten|prim|prims|higher_order|quantized|quantized_decomposed)\.\w+(\.\w+)?"
    r"|_operator\.(add|sub|mul|floordiv|truediv|mod|neg|pos|pow|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem"
    r"|lshift|rshift)"
    r"|math\.\w+|torch\._?sym_\w+|torch\._C\._set_grad_enabled"
)
"""Operators that come with torch and touch tensors and sizes only."""
FILE_OPERATORS: Final = re.compile(r"torch\.ops\.aten\.(from_file|save)(\.\w+)?")
EXPRESSION: Final = re.compile(
    r"(?:(?:Symbol|Integer|Float|Rational|Add|Mul|Pow|Max|Min|Mod|PythonMod|FloorDiv|CleanDiv|CeilDiv"
    r"|IntTrueDiv|FloatTrueDiv|TruncToInt|CeilToInt|FloorToInt|RoundToInt|ToFloat|ModularIndexing|Where|Identity"
    r"|Eq|Ne|Equality|Unequality|Relational|GreaterThan|LessThan|StrictGreaterThan|StrictLessThan|And|Or|Not"
    r"|OpaqueUnaryFn_\w+)(?=\()"
    r"|'[A-Za-z_]\w{0,63}'|(?:positive|integer|nonnegative|real|zero|nonzero|precision)(?==)"
    r"|True|False|true|false|int_oo|oo|'-?\d{1,20}(?:\.\d{1,20})?'|-?(?<!\d)\d{1,20}(?:\.\d{1,20})?(?!\d)|[(),=\s])*"
)
"""sympy's `srepr` of sizes: known functions, quoted symbol names, assumptions and numbers; nothing else."""
MAX_EXPRESSION_CHARS: Final = 4096
RESULT_TYPES: Final = (None, "builtins.tuple", "builtins.list", "builtins.dict")
"""What a program may return, in torch's words; None is a tensor by itself."""
EXPORT_AGAIN: Final = "Export the model again with torch.export.export(model.eval(), (x,)) and plain tensors."


def signature(program: dict[str, Any], file: str) -> Signature:
    """Return the signature of *program*, the parsed JSON; *file* names it in refusals. Raises Refusal."""
    _check_evaluated(program, file)
    try:
        return _signature(program, file)
    except (
        KeyError, TypeError, ValueError, AttributeError, IndexError, StopIteration, RecursionError,
    ):  # fmt: skip
        raise broken(file, "its description does not follow torch's schema") from None


def broken(file: str, why: str) -> Refusal:
    """Return the refusal of a program that is not whole."""
    return Refusal(
        ReasonCode.BROKEN_PROGRAM, f"{file} is not a whole exported program: {why}", EXPORT_AGAIN, file=file
    )


# what torch would evaluate


def _check_evaluated(program: dict[str, Any], file: str) -> None:
    for node in _objects(program):
        if node.get("custom_obj_values") or "custom_obj" in node or "as_custom_obj" in node:
            raise _refused(ReasonCode.UNEXPECTED_PICKLE, file, "it holds a custom object")
        if "target" in node:
            _check_target(node["target"], file)
        if "expr_str" in node:
            _check_expression(node["expr_str"], file)
    guards = program.get("guards_code", [])
    for guard in guards if isinstance(guards, list) else [None]:
        if not is_plain_guard(guard):
            raise _refused(ReasonCode.FREE_EXPRESSION, file, f"one of its guards is {str(guard)[:80]!r}")


def _objects(root: Any) -> Iterator[dict[str, Any]]:
    waiting = [root]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def _check_target(target: Any, file: str) -> None:
    if not isinstance(target, str):
        return  # a parameter that happens to be called so
    if FILE_OPERATORS.fullmatch(target):
        raise _refused(ReasonCode.FILE_ACCESS, file, f"it calls {target}, which reads or writes files")
    if TARGET.fullmatch(target) is None:
        raise _refused(
            ReasonCode.FOREIGN_OPERATOR, file, f"it calls {target[:80]!r}, which is not an operator of torch"
        )


def _check_expression(text: Any, file: str) -> None:
    if not is_plain_expression(text):
        raise _refused(ReasonCode.FREE_EXPRESSION, file, f"one of its sizes is {str(text)[:80]!r}")


def is_plain_expression(text: Any) -> bool:
    """Tell whether *text* is a size as torch writes it: `Mul(Integer(2), Symbol('s5', integer=True))`."""
    return (
        isinstance(text, str) and 0 < len(text) <= MAX_EXPRESSION_CHARS and bool(EXPRESSION.fullmatch(text))
    )


def _refused(code: ReasonCode, file: str, why: str) -> Refusal:
    return Refusal(code, f"{file} is not a program of plain tensors: {why}", EXPORT_AGAIN, file=file)


GUARD_NODES: Final = (
    ast.Expression, ast.Compare, ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.Subscript, ast.Constant, ast.Load,
    ast.boolop, ast.operator, ast.unaryop, ast.cmpop,
)  # fmt: skip
GUARD_FUNCTIONS: Final = frozenset({"max", "min", "abs", "int", "float", "round"})
GUARD_NAMES: Final = GUARD_FUNCTIONS | {"L", "math", "args", "kwargs"}
MAX_GUARD_POWER: Final = 8
GUARD_METHODS: Final = frozenset(
    {"size", "stride", "dim", "storage_offset", "isnan", "sqrt", "ceil", "floor", "trunc"}
)
GUARD_ATTRIBUTES: Final = GUARD_METHODS | {"dtype", "shape", "inf"}


def is_plain_guard(guard: Any) -> bool:
    """Tell whether a guard only compares sizes and constants, e.g. `L['b'].size()[0] == L['a'].size()[0]`."""
    if not isinstance(guard, str) or len(guard) > MAX_EXPRESSION_CHARS:
        return False
    try:
        tree = ast.parse(guard.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return all(_is_plain_node(node) for node in ast.walk(tree))


def _is_plain_node(node: ast.AST) -> bool:
    if isinstance(node, ast.Name):
        return node.id in GUARD_NAMES
    if isinstance(node, ast.Attribute):
        return node.attr in GUARD_ATTRIBUTES
    if isinstance(node, ast.Call):
        return not node.keywords and len(node.args) <= 2 and _is_plain_function(node.func)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        return isinstance(node.right, ast.Constant) and node.right.value in range(MAX_GUARD_POWER + 1)
    return isinstance(node, GUARD_NODES)


def _is_plain_function(function: ast.expr) -> bool:
    if isinstance(function, ast.Attribute):
        return function.attr in GUARD_METHODS
    return isinstance(function, ast.Name) and function.id in GUARD_FUNCTIONS


# the signature


def _signature(program: dict[str, Any], file: str) -> Signature:
    module = program["graph_module"]
    values = module["graph"]["tensor_values"]
    specs = module["signature"]
    call = next(entry["signature"] for entry in module["module_call_graph"] if entry["fqn"] == "")
    inputs = _user_tensors(specs["input_specs"], "user_input", file)
    outputs = _user_tensors(specs["output_specs"], "user_output", file)
    return Signature(
        inputs=_tensors(_input_names(inputs, call, file), inputs, values, file),
        outputs=_tensors(_output_names(outputs, call, file), outputs, values, file),
    )


def _user_tensors(specs: list[dict[str, Any]], kind: str, file: str) -> list[str]:
    """Return the graph's names of the tensors that a caller gives or gets, in order."""
    given = [spec[kind]["arg"] for spec in specs if kind in spec]
    if not given or any(set(argument) != {"as_tensor"} for argument in given):
        is_input = kind == "user_input"
        verb = "takes" if is_input else "returns"
        raise Refusal(
            ReasonCode.UNSUPPORTED_ARGUMENTS if is_input else ReasonCode.UNSUPPORTED_RESULTS,
            f"{file} {verb} something else than tensors",
            f"Wrap the model so that it {verb} tensors only, and export it again.",
            file=file,
        )
    return [argument["as_tensor"]["name"] for argument in given]


def _input_names(inputs: list[str], call: dict[str, Any], file: str) -> list[str]:
    positional, keyword = json.loads(call["in_spec"])[1]["children_spec"]
    if keyword["children_spec"]:
        raise Refusal(
            ReasonCode.UNSUPPORTED_ARGUMENTS,
            f"{file} was exported with keyword inputs, which can only be called by keyword",
            "Export it again with all inputs positional: torch.export.export(model, (a, b)).",
            file=file,
        )
    declared = call.get("forward_arg_names") or []
    flat = len(positional["children_spec"]) == len(inputs) == len(declared)
    return list(declared) if flat else inputs


def _output_names(outputs: list[str], call: dict[str, Any], file: str) -> list[str]:
    spec = json.loads(call["out_spec"])[1]
    children = spec["children_spec"]
    nested = any(child["children_spec"] for child in children) or len(children) not in (0, len(outputs))
    if nested or spec["type"] not in RESULT_TYPES:
        raise Refusal(
            ReasonCode.UNSUPPORTED_RESULTS,
            f"{file} returns tensors inside of other objects",
            "Return a tensor, a tuple of tensors or a dict of tensors, and export it again.",
            file=file,
        )
    if spec["type"] == "builtins.dict":
        return [str(key) for key in json.loads(spec["context"])]
    return output_names(len(outputs))


def output_names(count: int) -> list[str]:
    """Return the names of outputs that have none of their own: `output`, or `output_0`, `output_1`, …"""
    return ["output"] if count == 1 else [f"output_{index}" for index in range(count)]


def _tensors(
    names: list[str], values_names: list[str], values: dict[str, Any], file: str
) -> tuple[TensorSpec, ...]:
    return tuple(_tensor(name, values[value], file) for name, value in zip(names, values_names, strict=True))


def _tensor(name: str, value: dict[str, Any], file: str) -> TensorSpec:
    datatype = DATATYPE_OF_SCALAR_TYPE.get(value["dtype"])
    if datatype is None:
        raise Refusal(
            ReasonCode.UNSUPPORTED_ARGUMENTS,
            f"the tensor {name} of {file} has an element type that the protocol does not know",
            "Convert it to one of the common element types inside the model, and export it again.",
            file=file,
        )
    return TensorSpec(name, datatype, tuple(_size(size) for size in value["sizes"]))


def _size(size: dict[str, Any]) -> int:
    return int(size["as_int"]) if "as_int" in size else -1
