"""The network of bare weights, as a person names it: `{"class", "arguments"}` or `{"config"}`.

A class must be one that SIGNALBOX_ARCHITECTURES lists: its code is the operator's. `config` is a Hugging Face
config.json, whose network transformers brings itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from control_plane.admission.base import Refusal
from control_plane.admission.formats import hf_architecture, inert_config
from control_plane.config import Settings
from control_plane.errors import ConflictError, InvalidInputError
from control_plane.registry.artifacts import ArtifactStore
from control_plane.services.context import Context
from serving_agent.contract import architecture as architectures
from serving_agent.contract.architecture import Architecture

FORMAT: Final = "state_dict"
"""Format of versions whose network is a class of the operator's."""
MAX_JSON_BYTES: Final = 256 * 1024


def check(settings: Settings, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return *given* if it names a network that may be used. Raises InvalidInputError."""
    if len(msgspec.json.encode(given)) > MAX_JSON_BYTES:
        raise InvalidInputError(f"An architecture is described by at most {MAX_JSON_BYTES // 1024} KiB")
    if set(given) == {"config"} and isinstance(given["config"], dict):
        return {"config": _checked_config(given["config"])}
    return msgspec.to_builtins(allowed(settings, given))  # type: ignore[no-any-return] # a struct is a dict


def allowed(settings: Settings, given: Mapping[str, Any]) -> Architecture:
    """Return the class and arguments in *given* if the class is listed. Raises InvalidInputError."""
    try:
        named = msgspec.convert(dict(given), Architecture)
    except msgspec.ValidationError as error:
        raise InvalidInputError(
            f"That does not describe a network: {error}",
            next_step='Give {"class": "module:Class", "arguments": {…}} or {"config": {…}}, the config.json.',
        ) from None
    if named.builder not in settings.architectures:
        known = ", ".join(settings.architectures) or "none"
        raise InvalidInputError(
            f"{named.builder} is not in the list of networks that may be used; listed are: {known}",
            next_step="An operator lists it in SIGNALBOX_ARCHITECTURES, where agents can import it.",
        )
    return named


def write(settings: Settings, given: Mapping[str, Any], artifact_dir: Path) -> None:
    """Put the network's description beside its weights. Raises InvalidInputError where it may not be used."""
    named = check(settings, given)
    if "config" in named:
        text = json.dumps(named["config"], indent=2, sort_keys=True)
        (artifact_dir / "config.json").write_text(text + "\n", encoding="utf-8")
    else:
        architectures.write(allowed(settings, named), artifact_dir)


def check_served(ctx: Context, format_name: str, digest: str) -> None:
    """Check that a version's network is still one that may be used. Raises ConflictError."""
    if format_name != FORMAT:
        return
    named = architectures.read(ArtifactStore(ctx.settings.artifacts_dir).folder(digest))
    if named.builder not in ctx.settings.architectures:
        raise ConflictError(
            f"The version's network is {named.builder}, which SIGNALBOX_ARCHITECTURES does not list any more",
            next_step="List it again, or deploy another version.",
        )


def _checked_config(config: dict[str, Any]) -> dict[str, Any]:
    try:
        inert_config.check(config, "config.json")
        hf_architecture.named(config, "config.json")
    except Refusal as refusal:
        raise InvalidInputError(refusal.refused.message, next_step=refusal.refused.next_step) from None
    return config
