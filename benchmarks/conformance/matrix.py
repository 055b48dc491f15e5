"""All checks, and what one target answers to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from benchmarks.conformance import (
    checks,
    inference_checks,
    raw_checks,
    refusal_checks,
    server_checks,
    stream_checks,
)
from benchmarks.conformance.checks import Check, Json
from benchmarks.conformance.clients import Protocol, opened

CHECKS: Final = (
    *server_checks.CHECKS,
    *inference_checks.CHECKS,
    *stream_checks.CHECKS,
    *refusal_checks.CHECKS,
    *raw_checks.CHECKS,
)
BY_NAME: Final = {check.name: check for check in CHECKS}

Addresses = Mapping[tuple[str, Protocol], str]
"""Where a target answers, `host:port` by model and protocol."""
Observations = dict[str, dict[str, Json]]
"""What one target answered: by check, then by the client's flavour."""


async def run_check(check: Check, flavour: str, addresses: Addresses) -> Json:
    """Return what *check* sees at a target with one flavour of its client, on a connection of its own."""
    address = addresses[check.model, check.protocol]
    async with opened(check.protocol, flavour, address, check.model) as session:
        return await checks.observe(check, session)


async def run_all(addresses: Addresses, chosen: Iterable[Check] = CHECKS) -> Observations:
    """Return what the target answers to every check with every flavour, one after the other."""
    return {
        check.name: {flavour: await run_check(check, flavour, addresses) for flavour in check.flavours}
        for check in chosen
    }
