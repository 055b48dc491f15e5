"""Which tensors of a pickled object are weights, what pickles may name, and how long hostile ones take."""

from __future__ import annotations

import argparse
import collections
import datetime
import gc
import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from control_plane.admission import inert_globals, npy, state_dict_choice
from control_plane.admission.base import Refusal
from control_plane.admission.pickle_symbols import Call, Global, Items, Machine, NotAPickleError, Persistent
from control_plane.admission.pickled_tensors import (
    MalformedError,
    NotPlain,
    StorageKey,
    View,
    storage_key,
    tensor,
)  # fmt: skip
from control_plane.admission.reasons import ReasonCode
from control_plane.admission.state_dict_choice import AmbiguousError, SameNameError, TooLargeError, choose
from control_plane.admission.tensors import Storage

STEPS = 10_000


def stored(key: str = "0", kind: str = "FloatStorage", items: int = 4) -> Persistent:
    return Persistent(("storage", Global("torch", kind), key, "cpu", items))


def plain(
    key: str = "0", shape: tuple[int, ...] = (4,), strides: tuple[int, ...] = (1,), **more: Any
) -> Call:
    arguments = (
        stored(key, **more),
        0,
        shape,
        strides,
        False,
        Call(Global("collections", "OrderedDict"), ()),
    )
    return Call(Global("torch._utils", "_rebuild_tensor_v2"), arguments)


def items(**pairs: Any) -> Items:
    return Items(list(pairs.items()))


def ordered(**pairs: Any) -> Call:
    return Call(Global("collections", "OrderedDict"), (), None, None, list(pairs.items()))


def names(root: Any) -> list[str]:
    return sorted(choose(root, STEPS).views)


def left(root: Any) -> dict[str, str]:
    return {name: why for name, why, _ in choose(root, STEPS).left_out}


# one tensor


def test_a_plain_tensor_is_a_view() -> None:
    view = tensor(plain(shape=(2, 2), strides=(1, 2)))
    assert view == View(StorageKey("0", 4, 4, "F32"), "F32", 0, (2, 2), (1, 2))


def test_wrappers_are_taken_off() -> None:
    parameter = Call(Global("torch._utils", "_rebuild_parameter"), (plain(), True, None))
    subclass = Call(
        Global("torch._tensor", "_rebuild_from_type_v2"),
        (Global("torch._utils", "_rebuild_tensor_v2"), Global("torch", "Tensor"), plain().arguments, None),
    )
    stateful = Call(
        Global("torch._utils", "_rebuild_parameter_with_state"), (subclass, True, None, items(a=1))
    )
    assert tensor(parameter) == tensor(subclass) == tensor(stateful) == tensor(plain())


def test_untyped_storages_take_the_type_of_the_tensor() -> None:
    untyped = Persistent(("storage", Global("torch.storage", "UntypedStorage"), "0", "cpu", 8))
    call = Call(
        Global("torch._utils", "_rebuild_tensor_v3"),
        (untyped, 1, (3,), (1,), False, None, Global("torch", "uint16")),
    )
    assert tensor(call) == View(StorageKey("0", 1, 8, None), "U16", 1, (3,), (1,))


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (Call(Global("torch._utils", "_rebuild_qtensor"), ()), "quantised"),
        (Call(Global("torch._utils", "_rebuild_sparse_tensor"), ()), "sparse"),
        (Call(Global("torch._utils", "_rebuild_meta_tensor_no_storage"), ()), "meta"),
        (
            Call(Global("torch._utils", "_rebuild_wrapper_subclass"), (Global("torchao.x", "Y"),)),
            "torchao.x.Y",
        ),
        (plain(kind="QInt8Storage"), "quantised"),
        (
            Call(Global("torch._utils", "_rebuild_tensor_v2"), (*plain().arguments, items(conj=True))),
            "conjugated",
        ),
        (
            Call(
                Global("torch._utils", "_rebuild_tensor_v3"),
                (*plain().arguments, Global("torch", "float4_e2m1fn_x2")),
            ),
            "float4",
        ),
    ],
)
def test_tensors_without_plain_bytes_say_what_they_are(call: Call, what: str) -> None:
    found = tensor(call)
    assert isinstance(found, NotPlain)
    assert what in found.why


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        (1, 0, (4,), (1,)),
        (stored(), -1, (4,), (1,)),
        (stored(), 0, (4, 4), (1,)),
        (stored(), 0, (-4,), (1,)),
        (stored(), 0, (4,), (-1,)),
        (stored(), 0, (True,), (1,)),
        (stored(), 0, 4, 1),
        (stored(items=-1), 0, (4,), (1,)),
        (stored(kind="EvilStorage"), 0, (4,), (1,)),
        (Persistent("0"), 0, (4,), (1,)),
        (Persistent(("module", 1, 2, 3, 4)), 0, (4,), (1,)),
    ],
)
def test_malformed_tensors_are_told(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(MalformedError):
        tensor(Call(Global("torch._utils", "_rebuild_tensor_v2"), arguments))


def test_wrapped_without_end_is_told() -> None:
    call = Call(Global("torch._utils", "_rebuild_parameter"), ())
    call.arguments = (call, True, None)
    with pytest.raises(MalformedError):
        tensor(call)


def test_other_values_are_no_tensors() -> None:
    for value in (
        None,
        1,
        "x",
        [],
        (),
        items(),
        stored(),
        ordered(a=plain()),
        Call(Global("numpy", "dtype"), ()),
    ):
        assert tensor(value) is None
    with pytest.raises(MalformedError):
        storage_key("0")


# which are the weights


def test_a_state_dict_is_itself() -> None:
    assert names(items(a=plain(), b=plain())) == ["a", "b"]
    assert names(ordered(**{"layer.weight": plain()})) == ["layer.weight"]


@pytest.mark.parametrize("key", [*state_dict_choice.NESTS, *state_dict_choice.LATER_NESTS])
def test_a_checkpoint_holds_a_state_dict_by_its_usual_names(key: str) -> None:
    optimiser = items(state=items(a=items(exp_avg=plain("1"))), param_groups=[])
    root = Items(
        [(key, ordered(w=plain())), ("optim", optimiser), ("epoch", 3), ("lr_scheduler", items(x=1))]
    )
    assert names(root) == ["w"]
    assert left(root) == {"optim": "optimiser state", "epoch": "resume state", "lr_scheduler": "resume state"}


def test_checkpoints_in_checkpoints_are_followed() -> None:
    assert names(items(model=items(state_dict=items(w=plain())), args=1)) == ["w"]


def test_the_model_goes_before_its_average() -> None:
    root = items(ema=ordered(w=plain("1")), model=ordered(w=plain()))
    assert choose(root, STEPS).views["w"].storage.key == "0"
    assert left(root) == {"ema": "other weights than the model's"}


def test_several_networks_keep_their_names() -> None:
    root = items(
        generator=ordered(w=plain()),
        discriminator=ordered(w=plain()),
        optimizer_g=items(state=1),
        step=plain(),
    )
    assert names(root) == ["discriminator.w", "generator.w"]
    assert left(root) == {"optimizer_g": "optimiser state", "step": "resume state"}


def test_parameters_in_dicts_and_lists_are_named_by_their_keys() -> None:
    root = items(layers=[items(w=plain()), items(w=plain())], head=items(bias=plain()))
    assert names(root) == ["head.bias", "layers.0.w", "layers.1.w"]


def test_a_buffer_called_step_stays_in_a_plain_state_dict() -> None:
    assert names(ordered(step=plain(), weight=plain())) == ["step", "weight"]


def test_a_lone_tensor_gets_a_name() -> None:
    assert names(plain()) == ["tensor"]


def test_an_optimiser_alone_is_no_weights() -> None:
    choice = choose(items(state=items(a=items(exp_avg=plain())), param_groups=[]), STEPS)
    assert not choice.views


def test_tensors_without_bytes_are_kept_apart() -> None:
    root = items(a=plain(), q=Call(Global("torch._utils", "_rebuild_qtensor"), ()))
    choice = choose(root, STEPS)
    assert list(choice.views) == ["a"]
    assert choice.not_plain == {"q": "quantised tensor"}


@pytest.mark.parametrize("names_", [("a", "a"), ("a.b", "a")])
def test_one_name_for_two_tensors_is_told(names_: tuple[str, str]) -> None:
    second = items(b=plain()) if names_[0] == "a.b" else plain()
    with pytest.raises(SameNameError):
        choose(Items([(names_[0], plain()), (names_[1], second)]), STEPS)


def test_an_old_ordered_dict_is_read() -> None:
    old = Call(Global("collections", "OrderedDict"), ([["w", plain()], ["b", plain()]],))
    assert names(old) == ["b", "w"]


def test_a_dict_in_itself_ends() -> None:
    root = items(w=plain())
    root.pairs.append(("again", root))
    with pytest.raises(TooLargeError):
        choose(root, STEPS)
    nest = items(w=plain())
    nest.pairs.append(("model", nest))
    with pytest.raises(AmbiguousError):
        choose(nest, STEPS)


def test_a_thing_that_unfolds_without_end_ends_quickly() -> None:
    value: Any = items(w=plain())
    for _ in range(40):
        value = [value, value]
    begun = time.perf_counter()
    with pytest.raises(TooLargeError):
        choose(items(a=value), 100_000)
    assert time.perf_counter() - begun < 1


# what pickles may name


@pytest.mark.parametrize(
    "value",
    [
        argparse.Namespace(a=1),
        collections.Counter("abc"),
        collections.defaultdict(list, a=[1]),
        collections.OrderedDict(a=1),
        collections.deque([1]),
        datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
        datetime.timedelta(1),
        Path("a/b"),
        {1, 2},
        frozenset({1}),
        1 + 2j,
        b"x" * 300,
        bytearray(b"x"),
        range(3),
    ],
)
@pytest.mark.parametrize("protocol", range(6))
def test_plain_records_are_inert(value: Any, protocol: int) -> None:
    machine = Machine(pickle.dumps(value, protocol))
    machine.run()
    assert [str(found) for found in machine.globals if not inert_globals.is_inert(found)] == []


@pytest.mark.parametrize(
    "name",
    [
        "os.system", "posix.system", "builtins.eval", "builtins.exec", "builtins.getattr", "__builtin__.eval",
        "builtins.open", "io.open", "torch.load", "torch.hub.load", "torch.nn.modules.linear.Linear",
        "torch.fx.graph_module.reduce_graph_module", "torch.storage._load_from_bytes", "numpy.load",
        "numpy.core.multiarray.fromstring", "timeit.timeit", "pkgutil.resolve_name", "functools.partial",
        "operator.attrgetter", "subprocess.Popen", "builtins.__import__", "torch._utils._rebuild_tensor_v4",
        "torch.distributed.checkpoint.metadata.Metadata", "copyreg.extension 1", "torch.jit._unwrap_optional",
        "torchaox.y", "builtins.type", "builtins.compile", "builtins.input", "types.FunctionType",
        "types.CodeType",
        "collections.OrderedDict.update", "torch.Tensor.cpu", "typing.get_type_hints", "uuid.getnode",
    ],
)  # fmt: skip
def test_everything_else_is_not(name: str) -> None:
    module, _, last = name.rpartition(".")
    assert not inert_globals.is_inert(Global(module, last))


def test_extensions_and_buffers_are_imports() -> None:
    for data in (b"\x82\x01.", b"\x97."):
        machine = Machine(data)
        machine.run()
        assert len(machine.globals) == 1


def test_calling_a_result_is_noticed() -> None:
    calls = Machine(b"ccollections\nOrderedDict\n)R)R.")
    calls.run()
    assert calls.calls_results
    harmless = Machine(pickle.dumps(collections.OrderedDict(a=1)))
    harmless.run()
    assert not harmless.calls_results


def test_attributes_of_a_dict_do_not_hide_its_items() -> None:
    value = collections.OrderedDict(a=1, b=2)
    value.metadata = {"version": 1}  # type: ignore[attr-defined] # as state dicts have it
    root = Machine(pickle.dumps(value)).run()
    assert state_dict_choice.mapping(root) == [("a", 1), ("b", 2)]
    assert root.state.get("metadata").get("version") == 1


def test_text_of_python_2_is_text() -> None:
    assert Machine(b"U\x03abc.").run() == "abc"
    assert Machine(b"T\x03\0\0\0abc.").run() == "abc"
    assert Machine(b"U\x02\xff\xfe.").run().isascii()


HOSTILE = {
    "marks": b"(" * 65_535,
    "marks and tuples": b"(" * 32_000 + b"t" * 32_000 + b".",
    "appends far from their mark": b"](" + b"N" * 30_000 + b"e" * 30_000,
    "memo": b"\x80\x04N" + b"\x94" * 65_000 + b".",
    "recalls": b"\x80\x04]\x94" + b"h\x00" * 32_000 + b".",
    "lists in lists": b"]" * 32_000 + b"a" * 31_999 + b".",
    "long line": b"I" + b"1" * 65_000 + b"\n.",
    "long numbers": (b"L" + b"9" * 4000 + b"L\n") * 16 + b".",
    "long bytes": (b"\x8b" + (60_000).to_bytes(4, "little") + b"\x7f" * 60_000) + b".",
    "floats": (b"F" + b"1" * 4000 + b"\n") * 16 + b".",
    "states": b"ccollections\nOrderedDict\n)R" + b"Nb" * 32_000 + b".",
    "items one by one": b"ccollections\nOrderedDict\n)R" + b"NNs" * 21_000 + b".",
    "values one by one": b"ccollections\nOrderedDict\n)R" + b"Na" * 32_000 + b".",
    "pops": b"N0" * 32_000 + b"N.",
    "copies": b"N" + b"2" * 65_000 + b".",
    "bomb": b"]" + b"q\x00(h\x00h\x00e" * 9_000 + b".",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_no_64_kib_take_a_second(case: str, without_collections: None) -> None:
    begun = time.thread_time()
    try:
        choose(Items([("_" * 65_000, items(w=plain())), ("optim." * 10_000, plain())]), STEPS)
        root = Machine(HOSTILE[case]).run()
        choose(items(model=root, w=plain()), 4 * 65_536)
    except (NotAPickleError, TooLargeError, MalformedError, SameNameError):
        pass
    assert time.thread_time() - begun < 1


@pytest.fixture
def without_collections() -> Iterator[None]:
    """No garbage collection: it goes over all that the tests before have left, and a judge has none."""
    gc.disable()
    yield
    gc.enable()


# NumPy's headers


def header(text: str, version: int = 1) -> bytes:
    raw = text.encode()
    return npy.MAGIC + bytes([version, 0]) + len(raw).to_bytes(2 if version == 1 else 4, "little") + raw


def array(text: str, size: int) -> None:
    head = header(text)
    npy.tensor("a", head, Storage(Path("x"), 0, len(head) + size), "model.npz")


@pytest.mark.parametrize(
    ("text", "size", "code"),
    [
        ("{'descr': '|O', 'fortran_order': False, 'shape': (2,)}", 16, ReasonCode.NUMPY),
        ("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,)}", 8, ReasonCode.NUMPY),
        ("{'descr': '<U4', 'fortran_order': False, 'shape': (2,)}", 8, ReasonCode.NUMPY),
        ("{'descr': '', 'fortran_order': False, 'shape': (2,)}", 8, ReasonCode.NUMPY),
        ("{'descr': '>f4', 'fortran_order': False, 'shape': (2,)}", 8, ReasonCode.BIG_ENDIAN),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", 9, ReasonCode.BROKEN_WEIGHTS),
        ("{'descr': '<f4', 'fortran_order': 1, 'shape': (2,)}", 8, ReasonCode.BROKEN_WEIGHTS),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (-2,)}", 8, ReasonCode.BROKEN_WEIGHTS),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': [2]}", 8, ReasonCode.BROKEN_WEIGHTS),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'x': 1}", 8, ReasonCode.BROKEN_WEIGHTS),
        ("__import__('os').system('true')", 8, ReasonCode.BROKEN_WEIGHTS),
        ("(" * 9000, 8, ReasonCode.BROKEN_WEIGHTS),
        ("-" * 9000 + "1", 8, ReasonCode.BROKEN_WEIGHTS),
        ("{'shape': " + "9" * 9000 + "}", 8, ReasonCode.BROKEN_WEIGHTS),
        ("", 8, ReasonCode.BROKEN_WEIGHTS),
    ],
)
def test_arrays_of_other_things_are_refused(text: str, size: int, code: ReasonCode) -> None:
    with pytest.raises(Refusal) as refused:
        array(text, size)
    assert refused.value.refused.code == code
