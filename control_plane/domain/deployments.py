"""What a deployments file asks for, and how that differs from what there is. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from control_plane.domain import options as serving_options
from control_plane.domain.endpoint import EndpointGoal
from control_plane.domain.goal import Wish
from control_plane.domain.names import VersionRef
from serving_agent.contract.options import ServingOptions

_SETTINGS: Final = ("version", "state", "replicas", "threads", "device", "handler", "memory_bytes")


@dataclass(frozen=True, slots=True)
class AliasWish:
    """An alias that a file sets; line counts from 1."""

    model: str
    alias: str
    number: int
    line: int


@dataclass(frozen=True, slots=True)
class DeploymentWish:
    """An endpoint that a file describes; its model's serving settings are in *wish* already."""

    endpoint: str
    version: VersionRef
    wish: Wish
    state: EndpointGoal
    line: int


@dataclass(frozen=True, slots=True)
class Deployments:
    """A whole file, in its order."""

    aliases: tuple[AliasWish, ...]
    deployments: tuple[DeploymentWish, ...]


@dataclass(frozen=True, slots=True)
class Present:
    """What there is: aliases by (model, alias), settings of endpoints by name (keys as in `Change.before`),
    and the handler that each version was registered with, by `model@N`."""

    aliases: Mapping[tuple[str, str], int] = field(default_factory=dict)
    endpoints: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    handlers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Change:
    """One difference. kind: `alias`, `create` or `change`; before and after hold only what differs."""

    kind: str
    subject: str
    """`digits@champion` or the endpoint's name."""
    before: dict[str, Any]
    after: dict[str, Any]
    sentence: str


def resolve(version: VersionRef, wanted: Deployments, present: Present) -> str:
    """`model@N` of *version* once the aliases of *wanted* are set; an unknown alias stays as it is."""
    if isinstance(version.which, int):
        return str(version)
    aliases = {**present.aliases, **{(each.model, each.alias): each.number for each in wanted.aliases}}
    number = aliases.get((version.model, version.which))
    return str(version) if number is None else f"{version.model}@{number}"


def plan(wanted: Deployments, present: Present) -> tuple[Change, ...]:
    """The differences between *wanted* and *present*, in the order they are applied; empty when none."""
    return (*_alias_changes(wanted, present), *_deployment_changes(wanted, present))


def _alias_changes(wanted: Deployments, present: Present) -> Iterator[Change]:
    for each in wanted.aliases:
        before = present.aliases.get((each.model, each.alias))
        if before != each.number:
            name = f"{each.model}@{each.alias}"
            was = f" instead of {each.model}@{before}" if before else ""
            yield Change(
                "alias",
                name,
                {"version": f"{each.model}@{before}"} if before else {},
                {"version": f"{each.model}@{each.number}"},
                f"point {name} at {each.model}@{each.number}{was}",
            )


def _deployment_changes(wanted: Deployments, present: Present) -> Iterator[Change]:
    for each in wanted.deployments:
        before = present.endpoints.get(each.endpoint)
        ref = resolve(each.version, wanted, present)
        base = before or _fresh(present.handlers.get(ref, ""))
        after = _settings_after(base, each, ref)
        if before is None:
            yield Change("create", each.endpoint, {}, after, f"create {each.endpoint} serving {_told(after)}")
            continue
        change = _change(each.endpoint, _single(before), _single(after))
        if change is not None:
            yield change


def _change(endpoint: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Change | None:
    changed = [name for name in after if before[name] != after[name]]
    if not changed:
        return None
    told = ", ".join(f"{name} {_value(before[name])} → {_value(after[name])}" for name in changed)
    return Change(
        "change",
        endpoint,
        {name: before[name] for name in changed},
        {name: after[name] for name in changed},
        f"change {endpoint}: {told}",
    )


def _single(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting by itself, serving options by their dotted names."""
    own = {name: settings[name] for name in _SETTINGS}
    return {**own, **serving_options.flat(_options(settings))}


def _options(settings: Mapping[str, Any]) -> ServingOptions:
    return serving_options.merged(serving_options.DEFAULT, settings.get("options") or {})


def _fresh(handler: str) -> dict[str, Any]:
    return {"replicas": 1, "threads": 1, "device": "auto", "handler": handler, "memory_bytes": None}


def _settings_after(base: Mapping[str, Any], each: DeploymentWish, ref: str) -> dict[str, Any]:
    wish = each.wish
    memory_bytes = base["memory_bytes"] if wish.memory_bytes is None else (wish.memory_bytes or None)
    return {
        "version": ref,
        "state": str(each.state),
        "replicas": base["replicas"] if wish.replicas is None else wish.replicas,
        "threads": base["threads"] if wish.threads is None else wish.threads,
        "device": base["device"] if wish.device is None else wish.device,
        "handler": base["handler"] if wish.handler is None else wish.handler,
        "memory_bytes": memory_bytes,
        "options": serving_options.nested(serving_options.merged(_options(base), wish.options or {})),
    }


def _told(after: Mapping[str, Any]) -> str:
    usual = serving_options.flat(serving_options.DEFAULT)
    shown = [(name, value) for name, value in _single(after).items() if name not in {"version", "state"}]
    settings = ", ".join(
        f"{name} {_value(value)}" for name, value in shown if value is not None and value != usual.get(name)
    )
    stopped = " (stopped)" if after["state"] == EndpointGoal.STOPPED else ""
    return f"{after['version']}{stopped} with {settings}"


def _value(value: object) -> str:
    return "default" if value is None else serving_options.told(value)
