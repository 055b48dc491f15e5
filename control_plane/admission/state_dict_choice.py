"""Which tensors of a saved object are the weights, what they are called, and what is left out. Pure.

The object is what `pickle_symbols` found. Rules, in this order:

1. One of `NESTS` holds tensors: it is the state dict, everything beside it is left out. Tensors beside it
   that could belong to the network make it ambiguous, which is refused.
2. All tensors in dicts and lists, named by the keys that lead to them, joined with dots; optimiser and resume
   state (`RESUMED`, dicts with `param_groups`, and `NOT_WEIGHTS` without tensors) is left out. A plain state
   dict is the simplest case.
3. `LATER_NESTS` names the only dict with tensors: as 1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from control_plane.admission.pickle_symbols import COMPOUND, Call, Global, Items, children
from control_plane.admission.pickled_tensors import NotPlain, View, named, tensor

ATTRIBUTES: Final = ("model", "module")
"""Names that a network may have for a part of itself."""
NESTS: Final = ("state_dict", "model_state_dict", "model_state", *ATTRIBUTES)
LATER_NESTS: Final = (
    "net", "network", "weights", "params", "model_weights", "ema_state_dict", "model_ema", "ema",
    "params_ema",
)  # fmt: skip
NOT_WEIGHTS: Final = re.compile(
    r"(.*[_.])?(optim\w*|\w*scheduler\w*|scaler\w*|amp|rng\w*|random\w*|cuda_rng\w*|callbacks|loops"
    r"|hparams|hyper_parameters|config|args|epoch|step|global_step|iteration|loss\w*|metrics?|history"
    r"|criterion|sampler|dataloader\w*)",
    re.IGNORECASE,
)
RESUMED: Final = re.compile(
    r"(.*[_.])?optim\w*|((\w*_)?lr_)?schedulers?(_state\w*)?|(\w*_)?rng\w*|(\w*_)?random(_\w*)?|callbacks|loops"
    r"|(\w*_)?(step|epoch|iteration|criterion)s?|(\w*_)?(loss(es)?|metrics?|history)(_\w*)?"
    r"|(\w*_)?(sampler|data_?loader)s?(_state\w*)?",
    re.IGNORECASE,
)
"""Of `NOT_WEIGHTS`, what training loops keep tensors under."""
OPTIMISER: Final = re.compile(r"(.*[_.])?optim\w*", re.IGNORECASE)
OPTIMISER_KEYS: Final = frozenset({"state", "param_groups"})
MAPPINGS: Final = frozenset(
    {Global("collections", "OrderedDict"), Global("collections", "defaultdict"), Global("builtins", "dict")}
)
LONE_NAME: Final = "tensor"
"""Name of a tensor that was saved by itself."""
MAX_NESTING: Final = 16
MAX_NAME_CHARS: Final = 1025
"""One more than a name may have: longer ones are refused later, and would take memory until then."""
MAX_OPTIMISER_KEYS: Final = 8
MAX_KEY_CHARS: Final = 64
"""Of keys that may mean something: patterns take time that grows with the square of the length."""
MAX_TENSORS: Final = 200_000


class TooLargeError(ValueError):
    """The object refers to itself or unfolds without end."""


class SameNameError(ValueError):
    """Two tensors would have one name, the only argument."""


class AmbiguousError(ValueError):
    """A tensor lies beside a state dict; the arguments are its name and the key of the state dict."""


@dataclass(slots=True)
class Choice:
    """The weights in a saved object."""

    views: dict[str, View] = field(default_factory=dict)
    """Plain tensors by name."""
    not_plain: dict[str, str] = field(default_factory=dict)
    """Weights without plain bytes by name, and what they are."""
    left_out: list[tuple[str, str, Any]] = field(default_factory=list)
    """What does not become weights: key (with dots), why, and the value."""


def choose(root: Any, steps: int) -> Choice:
    """Return the weights in *root*, looking at no more than *steps* values: an object may refer to itself.

    Raises TooLargeError, SameNameError, AmbiguousError, and MalformedError of `pickled_tensors`.
    """
    return _Chooser(steps).choose(root)


def mapping(value: Any) -> list[tuple[Any, Any]] | None:
    """Return the pairs of a dict of any usual class, None for what is no dict."""
    if isinstance(value, Items):
        return value.pairs
    if not isinstance(value, Call) or not isinstance(value.function, Global):
        return None
    if value.function not in MAPPINGS and value.function.name != "AttributeDict":
        return None
    return [*_given(value.arguments), *(value.pairs or ())]


def matches(pattern: re.Pattern[str], key: Any) -> bool:
    """Tell whether *key* is a text of usual length that *pattern* describes."""
    return isinstance(key, str) and len(key) <= MAX_KEY_CHARS and pattern.fullmatch(key) is not None


def _given(arguments: Any) -> list[tuple[Any, Any]]:
    """Return the pairs of `OrderedDict([[key, value], ...])`, as Python 2 wrote it."""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else None
    if not isinstance(first, list):
        return []
    return [(pair[0], pair[1]) for pair in first if isinstance(pair, list | tuple) and len(pair) == 2]


class _Chooser:
    def __init__(self, steps: int) -> None:
        self._choice = Choice()
        self._steps = steps
        self._without: set[int] = set()
        """Identities of values that hold no tensor."""

    def choose(self, root: Any) -> Choice:
        path: tuple[str, ...] = ()
        for _ in range(MAX_NESTING):
            pairs = mapping(root)
            nest = None if pairs is None else self._nest(pairs)
            if pairs is None or nest is None:
                break
            self._leave_beside(pairs, nest, path)
            path, root = (*path, nest), next(value for key, value in reversed(pairs) if key == nest)
        if self._is_optimiser(root):
            self._choice.left_out.append((".".join(path) or "state", "optimiser state", root))
        else:
            self._flatten(root, path)
        return self._choice

    def _nest(self, pairs: list[tuple[Any, Any]]) -> str | None:
        """Return the key of *pairs* that holds the state dict, None where *pairs* are it."""
        held = [key for key, value in pairs if self._is_container(value) and self._holds_tensor(value)]
        first = next((key for key in NESTS if key in held), None)
        if first is not None:
            return first
        weights = [key for key in held if not matches(RESUMED, key)]
        only = weights[0] if len(weights) == 1 else None
        return only if only in LATER_NESTS and not self._direct(pairs) else None

    def _direct(self, pairs: list[tuple[Any, Any]]) -> bool:
        """Tell whether tensors lie beside the dicts of *pairs* that are no counters or resume state."""
        return any(
            isinstance(key, str) and not matches(RESUMED, key) and tensor(value) is not None
            for key, value in pairs
        )

    def _leave_beside(self, pairs: list[tuple[Any, Any]], nest: str, path: tuple[str, ...]) -> None:
        for key, value in pairs:
            if key != nest:
                self._check_beside(key, value, nest)
                self._leave(path, key, value, beside=True)

    def _check_beside(self, key: Any, value: Any, nest: str) -> None:
        """Refuse to choose where a tensor beside the state dict could be a parameter; counters are not."""
        found = tensor(value)
        if found is None or not isinstance(key, str) or matches(RESUMED, key):
            return
        several = not isinstance(found, View) or math.prod(found.shape) > 1
        if "." in key or (several and nest in ATTRIBUTES):
            raise AmbiguousError(key[:120], nest)

    def _leave(self, path: tuple[str, ...], key: Any, value: Any, *, beside: bool = False) -> None:
        name = _joined((*path, key if isinstance(key, str) else named(key)))
        why = "not weights"
        if matches(OPTIMISER, key) or self._is_optimiser(value):
            why = "optimiser state"
        elif matches(NOT_WEIGHTS, key):
            why = "resume state"
        elif beside and self._is_container(value) and self._holds_tensor(value):
            why = "other weights than the model's"
        self._choice.left_out.append((name, why, value))

    def _flatten(self, root: Any, path: tuple[str, ...]) -> None:
        if tensor(root) is not None:
            self._keep(LONE_NAME, root)
            return
        waiting: list[tuple[tuple[str, ...], Iterator[tuple[Any, Any]], bool]] = []
        first = list(self._entries(root))
        waiting.append(((), iter(first), self._mixes(first)))
        while waiting:
            names, entries, mixed = waiting[-1]
            for key, value in entries:
                self._step()
                if self._descends(key, value, names, path, mixed=mixed):
                    inner = list(self._entries(value))
                    waiting.append(((*names, str(key)), iter(inner), False))
                    break
            else:
                waiting.pop()

    def _descends(
        self, key: Any, value: Any, names: tuple[str, ...], path: tuple[str, ...], *, mixed: bool
    ) -> bool:
        """Keep or leave out one entry; True where what it holds has to be looked into."""
        resumes = matches(OPTIMISER if names else RESUMED, key)
        is_name = type(key) in (str, int)
        if is_name and tensor(value) is not None and not (mixed and resumes):
            self._keep(_joined((*names, str(key))), value)
            return False
        if is_name and not resumes and not self._is_optimiser(value) and self._holds_tensor(value):
            if len(names) >= MAX_NESTING:
                raise TooLargeError("it is nested too deep")
            return self._is_container(value) or self._odd(key, value, (*path, *names))
        self._leave((*path, *names), key, value)
        return False

    def _odd(self, key: Any, value: Any, path: tuple[str, ...]) -> bool:
        """Leave out an object that holds tensors and is neither dict nor list."""
        self._leave(path, key, value)
        return False

    def _mixes(self, entries: list[tuple[Any, Any]]) -> bool:
        """Tell whether dicts with tensors lie beside tensors: then counters among those are no weights."""
        return any(self._is_container(value) and self._holds_tensor(value) for _, value in entries)

    def _entries(self, value: Any) -> Iterator[tuple[Any, Any]]:
        if isinstance(value, list | tuple):
            return iter(enumerate(value))
        return iter(mapping(value) or ())

    def _keep(self, name: str, value: Any) -> None:
        if name in self._choice.views or name in self._choice.not_plain:
            raise SameNameError(name)
        found = tensor(value)
        if isinstance(found, View):
            self._choice.views[name] = found
        elif isinstance(found, NotPlain):
            self._choice.not_plain[name] = found.why
        if len(self._choice.views) > MAX_TENSORS:
            raise TooLargeError(f"it holds more than {MAX_TENSORS} tensors")

    def _is_container(self, value: Any) -> bool:
        return isinstance(value, list | tuple) or mapping_like(value)

    def _is_optimiser(self, value: Any) -> bool:
        if not mapping_like(value) or _size(value) > MAX_OPTIMISER_KEYS:
            return False
        return {key for key, _ in mapping(value) or () if isinstance(key, str)} >= OPTIMISER_KEYS

    def _holds_tensor(self, value: Any) -> bool:
        """Tell whether a tensor can be reached from *value*; what reaches none is looked at once only."""
        seen: set[int] = set()
        waiting = [value]
        while waiting:
            found = waiting.pop()
            if id(found) in seen or id(found) in self._without or not isinstance(found, COMPOUND):
                continue
            if isinstance(found, Call) and tensor(found) is not None:
                return True
            seen.add(id(found))
            inner = children(found)
            self._step(1 + len(inner))
            waiting.extend(inner)
        self._without |= seen
        return False

    def _step(self, count: int = 1) -> None:
        self._steps -= count
        if self._steps < 0:
            raise TooLargeError("it unfolds without end")


def _size(value: Items | Call) -> int:
    """Return how many pairs `mapping` would find at most, without collecting them."""
    if isinstance(value, Items):
        return len(value.pairs)
    first = value.arguments[0] if isinstance(value.arguments, tuple) and value.arguments else None
    return len(value.pairs or ()) + (len(first) if isinstance(first, list) else 0)


def _joined(keys: tuple[str, ...]) -> str:
    return ".".join(key[:MAX_NAME_CHARS] for key in keys)[:MAX_NAME_CHARS]


def mapping_like(value: Any) -> bool:
    """Tell whether `mapping` would find pairs, without collecting them."""
    if isinstance(value, Items):
        return True
    function = value.function if isinstance(value, Call) else None
    return isinstance(function, Global) and (function in MAPPINGS or function.name == "AttributeDict")
