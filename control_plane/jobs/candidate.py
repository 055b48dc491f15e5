"""What an upload would become: the gate's verdict and what people declared, put together. Pure.

Bare weights become a version in one of two ways: with a class of the operator's (format `state_dict`), or
with a Hugging Face configuration (format `huggingface`), which is then sent tokens and answers with tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from control_plane.admission.base import Accepted, Need, Refusal
from control_plane.admission.formats import hf_architecture
from control_plane.admission.reasons import ReasonCode
from control_plane.services.upload_checks import Declared
from serving_agent.contract.signature import Signature, TensorSpec

HUB: Final = "huggingface"
TOKENS: Final = Signature(inputs=hf_architecture.TOKENS, outputs=())
NOTHING: Final = Signature(inputs=(), outputs=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One version to be, as far as it is known."""

    format: str
    handler: str
    signature: Signature
    """Lacks outputs where only trying tells them."""
    labels: tuple[str, ...]
    needs: tuple[Need, ...]
    """What a person has still to give."""
    tried_with: Signature | None
    """What it is opened and run with before it is registered; None where it is not."""
    exact: bool = False
    """Whether the file may hold no weights but the network's."""

    @property
    def is_measured(self) -> bool:
        """Whether trying it tells the version's outputs: clients send what the model itself takes."""
        return self.tried_with is self.signature


def combine(verdict: Accepted, declared: Declared) -> Candidate:
    """Return what the upload would become. Raises Refusal where verdict and declaration disagree."""
    if "architecture" in verdict.needs:
        return _with_network(verdict, declared)
    given = {
        "acceptance": declared.program_accepted_by is not None,
        "signature": declared.signature is not None,
    }
    signature = _signature(verdict, declared)
    return Candidate(
        format=verdict.format,
        handler=declared.handler or verdict.handler,
        signature=signature,
        labels=declared.labels or verdict.labels,
        needs=tuple(need for need in verdict.needs if not given[need]),
        tried_with=signature if verdict.program else TOKENS if verdict.format == HUB else None,
    )


def _with_network(verdict: Accepted, declared: Declared) -> Candidate:
    network = declared.architecture or {}
    if "config" in network:
        return _with_config(network["config"], declared)
    signature = declared.signature or verdict.signature or NOTHING
    named = "class" in network
    return Candidate(
        format=verdict.format,
        handler=declared.handler or verdict.handler,
        signature=signature,
        labels=declared.labels or verdict.labels,
        needs=() if named and signature.inputs else ("signature",) if named else ("architecture",),
        tried_with=signature,
        exact=True,
    )


def _with_config(config: Mapping[str, Any], declared: Declared) -> Candidate:
    signature = declared.signature or TOKENS
    return Candidate(
        format=HUB,
        handler=declared.handler or "tensor",
        signature=signature,
        labels=declared.labels or hf_architecture.class_names(dict(config), "config.json"),
        needs=(),
        tried_with=signature,
        exact=True,
    )


def _signature(verdict: Accepted, declared: Declared) -> Signature:
    """Return the file's own signature, with what a person declared where the file does not say it."""
    known = verdict.signature or NOTHING
    given = declared.signature
    if given is None or not verdict.program:
        return known
    if "signature" not in verdict.needs and known.outputs:
        return known
    return Signature(inputs=_ordered(known.inputs, given.inputs), outputs=given.outputs)


def _ordered(known: tuple[TensorSpec, ...], given: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    """Return the declared inputs in the order of the program's own, where it says those. Raises Refusal."""
    if not known:
        return given
    names = [spec.name for spec in known]
    by_name = {spec.name: spec for spec in given}
    if set(names) == set(by_name):
        return tuple(by_name[name] for name in names)
    raise Refusal(
        ReasonCode.SIGNATURE_MISMATCH,
        f"the program takes the inputs {', '.join(names)}; declared are {', '.join(by_name) or 'none'}",
        "Name the inputs as the program does.",
    )
