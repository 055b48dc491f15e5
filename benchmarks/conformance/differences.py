"""Where our answers differ from Triton's on purpose, each with its reason; anything else is a fault. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from benchmarks.conformance import checks, models
from benchmarks.conformance.checks import Json

AGENT: Final = "agent"
GATEWAY: Final = "gateway"


@dataclass(frozen=True, slots=True)
class Difference:
    """One intended difference.

    checks: names or patterns (`*`) of checks. ours: what our side must answer instead. targets: where.
    """

    checks: tuple[str, ...]
    ours: Json
    reason: str
    targets: tuple[str, ...] = (AGENT, GATEWAY)

    def covers(self, check: str, target: str) -> bool:
        """Tell whether this is about *check* at *target*."""
        return target in self.targets and any(fnmatchcase(check, pattern) for pattern in self.checks)


def _answered(datatype: str) -> Json:
    return checks.tensor(models.rotated(models.values(datatype)))


_NOT_FOUND: Final = {"refused": "StatusCode.NOT_FOUND"}
_UNIMPLEMENTED: Final = {"refused": "StatusCode.UNIMPLEMENTED"}
_BAD_REQUEST: Final = {"refused": "400", "error": True}

INTENDED: Final = (
    Difference(
        ("http/infer/FP16/*json*",), _answered("FP16"), "FP16 may travel as JSON: its numbers are exact there"
    ),
    Difference(("http/infer/BF16/binary-json",), _answered("BF16"), "BF16 may travel as JSON, as FP16 may"),
    Difference(
        ("raw/refused/*",), _BAD_REQUEST, "what a client did wrong is a 400, never a 500 and never an answer"
    ),
    Difference(
        ("http/infer/nan", "http/infer/no-rows"),
        {"refused": "400"},
        "NaN, infinities and tensors without elements are refused unless the endpoint allows them",
    ),
    Difference(
        ("grpc/infer/nan", "grpc/infer/no-rows"), {"refused": "StatusCode.INVALID_ARGUMENT"}, "as over REST"
    ),
    Difference(
        ("grpc/refused/unknown-model/ready", "grpc/ready/unknown-version"),
        _NOT_FOUND,
        "a model that is not here is not found; `ready: false` would say that it is loading",
    ),
    Difference(
        ("http/refused/unknown-model/statistics",), {"refused": "404"}, "an unknown model is 404 everywhere"
    ),
    Difference(
        ("grpc/refused/unknown-model/statistics", "grpc/refused/version-no-number/infer"),
        _NOT_FOUND,
        "unknown models and versions are NOT_FOUND everywhere, however they are written",
    ),
    Difference(("http/load", "http/unload"), {"refused": "405"}, "the control plane owns the versions"),
    Difference(("grpc/load", "grpc/unload"), _UNIMPLEMENTED, "the control plane owns the versions"),
    Difference(
        ("http/shared-memory", "http/trace-settings"), {"refused": "404"}, "extensions that are not offered"
    ),
    Difference(("grpc/trace-settings",), _UNIMPLEMENTED, "an extension that is not offered", (AGENT,)),
    Difference(
        ("http/index/*",),
        {"refused": "405"},
        "the gateway stands before many servers; the control plane's own API lists them",
        (GATEWAY,),
    ),
    Difference(("grpc/index/*",), _UNIMPLEMENTED, "as over REST", (GATEWAY,)),
    Difference(("http/statistics/all",), {"refused": "404"}, "each endpoint tells its own", (GATEWAY,)),
    Difference(
        ("grpc/statistics/all", "grpc/shared-memory", "grpc/trace-settings"),
        _NOT_FOUND,
        "the gateway passes on only what names an endpoint, and what any agent may answer",
        (GATEWAY,),
    ),
    Difference(
        ("grpc/infer/compression-gzip", "grpc/infer/compression-deflate"),
        _UNIMPLEMENTED,
        "the gateway reads the model's name in the message; a compressed one needs the metadata x-endpoint",
        (GATEWAY,),
    ),
    Difference(
        ("grpc/stream/unknown-model",),
        _NOT_FOUND,
        "the gateway has nowhere to send such a stream, so it ends with its first message",
        (GATEWAY,),
    ),
    Difference(
        ("raw/live-body", "raw/ready-body"),
        {"status": 200, "json": True},
        "health bodies are JSON: KServe's client reads them",
    ),
    Difference(
        ("kserve/rest/live", "kserve/rest/ready"), True, "as above: Triton's empty bodies fail the client"
    ),
    Difference(("raw/root-slash",), {"status": 200}, "the protocol's OpenAPI file names this path"),
)


def find(check: str, target: str) -> Difference | None:
    """Return the intended difference of *check* at *target*."""
    return next((each for each in INTENDED if each.covers(check, target)), None)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one answer of ours stands to Triton's: `same`, `intended` or `wrong`, and why."""

    word: str
    why: str = ""

    @property
    def is_fault(self) -> bool:
        """Whether the run must fail for it."""
        return self.word == "wrong"


def judge(check: str, target: str, ours: Json, oracle: Json, expected: Json) -> Verdict:
    """Return how *ours* stands to what the *oracle* answered; *expected*: the right value, if known. Pure."""
    difference = find(check, target)
    if difference is not None and checks.same(ours, difference.ours):
        return Verdict("intended", difference.reason)
    if expected is not None and not checks.same(ours, expected):
        return Verdict("wrong", "not the value that the model gives")
    if checks.same(ours, oracle):
        return Verdict("same")
    return Verdict("wrong", "not what Triton answers, and no difference is intended")


def judge_oracle(seen: Json, expected: Json) -> Verdict:
    """Return whether Triton itself gives the right value, if that is known. Pure."""
    fits = expected is None or checks.same(seen, expected)
    return Verdict("same") if fits else Verdict("wrong", "Triton does not give the model's value")
