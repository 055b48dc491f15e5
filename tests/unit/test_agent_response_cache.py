"""Answers given again: what a key depends on, and how long and how many answers are kept."""

from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from serving_agent.contract.options import Cache
from serving_agent.datatypes import NUMPY_TYPE
from serving_agent.messages import OutputTensor
from serving_agent.response_cache import ENTRY_BYTES, ResponseCache, key

INPUTS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([b"x", b"yz"], dtype=object)}
OUTPUTS = ("y", "z")
PARAMETERS = (("beam", 1), ("lang", "de"))
KEY = key("sha256:1", INPUTS, OUTPUTS, PARAMETERS)


def changed(name, array):
    return key("sha256:1", {**INPUTS, name: array}, OUTPUTS, PARAMETERS)


def test_equal_requests_have_equal_keys_wherever_their_arrays_lie():
    scattered = np.zeros((2, 6), np.float32)[:, ::2]
    scattered[:] = INPUTS["a"]
    copies = {"a": scattered, "b": INPUTS["b"].copy()}
    assert not scattered.flags.c_contiguous
    assert key("sha256:1", copies, list(OUTPUTS), PARAMETERS) == KEY


@pytest.mark.parametrize(
    "other",
    [
        key("sha256:2", INPUTS, OUTPUTS, PARAMETERS),
        key("sha256:1", INPUTS, ("z", "y"), PARAMETERS),
        key("sha256:1", INPUTS, ("y",), PARAMETERS),
        key("sha256:1", INPUTS, OUTPUTS, ()),
        key("sha256:1", INPUTS, OUTPUTS, (("beam", True), ("lang", "de"))),
        key("sha256:1", INPUTS, OUTPUTS, (("beam", 1.0), ("lang", "de"))),
        key("sha256:1", INPUTS, OUTPUTS, (("beam", "1"), ("lang", "de"))),
        key("sha256:1", {"c": INPUTS["a"], "b": INPUTS["b"]}, OUTPUTS, PARAMETERS),
        key("sha256:1", {"a": INPUTS["a"]}, OUTPUTS, PARAMETERS),
        changed("a", INPUTS["a"].reshape(3, 2)),
        changed("a", INPUTS["a"].view(np.int32)),
        changed("b", np.array([b"xy", b"z"], dtype=object)),
        changed("b", np.array([[b"x", b"yz"]], dtype=object)),
        changed("b", np.array([b"x", b"yz\0"], dtype=object)),
    ],
)
def test_whatever_an_answer_depends_on_changes_its_key(other):
    assert other != KEY


@given(
    st.sampled_from(sorted(set(NUMPY_TYPE) - {"BYTES", "BOOL"})),
    st.binary(min_size=16, max_size=32),
    st.data(),
)
def test_every_byte_of_an_input_changes_the_key(datatype, content, data):
    size = NUMPY_TYPE[datatype].itemsize
    content = content[: len(content) // size * size]
    place = data.draw(st.integers(0, len(content) - 1))
    other = bytearray(content)
    other[place] ^= data.draw(st.integers(1, 255))
    arrays = (np.frombuffer(bytes(part), NUMPY_TYPE[datatype]) for part in (content, other))
    one, another = (key("d", {"x": array}, (), ()) for array in arrays)
    assert one != another


@given(st.lists(st.binary(max_size=4), max_size=4), st.lists(st.binary(max_size=4), max_size=4))
def test_texts_have_the_same_key_only_if_they_are_the_same(one, other):
    def key_of(items):
        array = np.empty(len(items), dtype=object)
        array[:] = items
        return key("d", {"x": array}, (), ())

    assert (key_of(one) == key_of(other)) == (one == other)


def test_a_scalar_input_has_a_key():
    assert key("d", {"x": np.array(1.0)}, (), ()) != key("d", {"x": np.array(2.0)}, (), ())


def answer(size, value=0):
    return (OutputTensor("y", "UINT8", np.full(size, value, np.uint8)),)


def test_a_stored_answer_does_not_share_the_memory_of_its_batch():
    together = np.zeros((8, 4), np.float32)
    cache = ResponseCache(Cache(max_bytes=10_000))
    cache.put(b"1", (OutputTensor("y", "FP32", together[2:3]),), 0.0)
    together[:] = 7
    (stored,) = cache.get(b"1", 0.0)
    assert stored.array.tolist() == [[0.0] * 4]
    assert (stored.array.base is None, stored.name, stored.datatype) == (True, "y", "FP32")


def test_an_answer_is_given_until_it_is_too_old_and_then_forgotten():
    cache = ResponseCache(Cache(max_bytes=10_000, ttl_s=5.0))
    cache.put(b"1", answer(8), 100.0)
    assert cache.get(b"1", 105.0) is not None
    assert cache.get(b"1", 105.1) is None
    assert cache.size == 0
    cache.put(b"1", answer(8), 106.0)
    assert cache.get(b"1", 107.0) is not None


def test_texts_count_with_their_length():
    texts = np.array([b"x" * 1000, b""], dtype=object)
    cache = ResponseCache(Cache(max_bytes=1500))
    cache.put(b"1", (OutputTensor("y", "BYTES", texts),), 0.0)
    assert cache.size == 0
    cache = ResponseCache(Cache(max_bytes=2000))
    cache.put(b"1", (OutputTensor("y", "BYTES", texts),), 0.0)
    assert cache.size == ENTRY_BYTES + 1000 + 2 * 64


def test_a_cache_without_memory_is_off():
    cache = ResponseCache(Cache())
    assert not cache.is_on
    cache.put(b"1", (), 0.0)
    assert cache.get(b"1", 0.0) is None
    assert ResponseCache(Cache(max_bytes=1)).is_on


KEYS = st.sampled_from([b"1", b"2", b"3", b"4"])


class Kept(RuleBasedStateMachine):
    """A cache and an ordered dictionary, least recently used first."""

    @initialize(room=st.integers(0, 3 * (ENTRY_BYTES + 50)))
    def begin(self, room):
        self.cache = ResponseCache(Cache(max_bytes=room, ttl_s=10.0))
        self.room = room
        self.kept: OrderedDict[bytes, tuple[int, int, float]] = OrderedDict()
        self.now_s = 0.0

    @rule(key=KEYS, size=st.integers(0, 100), value=st.integers(0, 255))
    def put(self, key, size, value):
        self.cache.put(key, answer(size, value), self.now_s)
        if ENTRY_BYTES + size > self.room:
            return
        self.kept.pop(key, None)
        while self.used + ENTRY_BYTES + size > self.room:
            self.kept.popitem(last=False)
        self.kept[key] = (size, value, self.now_s)

    @rule(key=KEYS)
    def get(self, key):
        outputs = self.cache.get(key, self.now_s)
        size, value, stored_s = self.kept.get(key, (0, 0, 0.0))
        if key in self.kept and self.now_s - stored_s > 10.0:
            del self.kept[key]
        if key not in self.kept:
            assert outputs is None
            return
        self.kept.move_to_end(key)
        assert outputs[0].array.tolist() == [value] * size

    @rule(seconds=st.sampled_from([1.0, 6.0, 11.0]))
    def wait(self, seconds):
        self.now_s += seconds

    @property
    def used(self):
        return sum(ENTRY_BYTES + size for size, _, _ in self.kept.values())

    @invariant()
    def bounded(self):
        if hasattr(self, "cache"):
            assert self.cache.size == self.used <= max(self.room, 0)


TestKept = Kept.TestCase
