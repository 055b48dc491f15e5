"""Checks of everything but inference: health, metadata, configuration, statistics, repository."""

from __future__ import annotations

from typing import Any, Final

from benchmarks.conformance import models
from benchmarks.conformance.checks import Check, Json
from benchmarks.conformance.clients import Protocol, Session
from benchmarks.conformance.infer_requests import classify, image_input, plain

EXTENSIONS: Final = ("binary_tensor_data", "model_configuration", "statistics")
"""Extensions of the protocol that NVIDIA's tools look for."""
COUNTERS: Final = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")
REQUESTS: Final = 3


async def _is_live(session: Session) -> Json:
    return await session.ask("is_server_live")


async def _is_ready(session: Session) -> Json:
    return await session.ask("is_server_ready")


async def _model_ready(session: Session) -> Json:
    return await session.ask("is_model_ready", session.model)


async def _version_ready(session: Session) -> Json:
    return await session.ask("is_model_ready", session.model, "1")


async def _unknown_version_ready(session: Session) -> Json:
    return await session.ask("is_model_ready", session.model, "9")


async def _server_metadata(session: Session) -> Json:
    metadata = plain(await session.ask("get_server_metadata"))
    named = all(isinstance(metadata[key], str) and metadata[key] for key in ("name", "version"))
    return {"named": named, "extensions": [name for name in EXTENSIONS if name in metadata["extensions"]]}


async def _metadata(session: Session) -> Json:
    metadata = plain(await session.ask("get_model_metadata", session.model))
    return {key: metadata[key] for key in ("name", "versions", "inputs", "outputs")}


async def _version_metadata(session: Session) -> Json:
    metadata = plain(await session.ask("get_model_metadata", session.model, "1"))
    return {key: metadata[key] for key in ("name", "versions")}


async def _config(session: Session) -> Json:
    answer = plain(await session.ask("get_model_config", session.model))
    config = answer.get("config", answer)
    tensors = {
        side: [{key: spec[key] for key in ("name", "data_type", "dims")} for spec in config[side]]
        for side in ("input", "output")
    }
    return {"name": config["name"], "max_batch_size": config.get("max_batch_size", 0), **tensors}


async def _index(session: Session) -> Json:
    answer = plain(await session.ask("get_model_repository_index"))
    found = answer["models"] if isinstance(answer, dict) else answer
    return [
        {key: entry.get(key) for key in ("name", "version", "state")}
        for entry in found
        if entry["name"] == session.model
    ]


async def _statistics_of(session: Session) -> dict[str, Any]:
    answer = plain(await session.ask("get_inference_statistics", session.model, "1"))
    (found,) = answer["model_stats"]
    return dict(found)


def _counts(statistics: dict[str, Any]) -> dict[str, int]:
    """Return the counters; gRPC's JSON leaves zeros out and writes 64-bit numbers as strings."""
    phases = statistics.get("inference_stats", {})
    totals = {key: int(statistics.get(key, 0)) for key in ("inference_count", "execution_count")}
    return totals | {name: int(phases.get(name, {}).get("count", 0)) for name in COUNTERS}


async def _statistics(session: Session) -> Json:
    """Return by how much REQUESTS requests of one row move the counters, and whether durations are there."""
    before = _counts(await _statistics_of(session))
    for _ in range(REQUESTS):
        await session.ask("infer", models.DIGITS, [image_input(session, 1)])
    statistics = await _statistics_of(session)
    after = _counts(statistics)
    measured = {
        name: int(statistics["inference_stats"][name]["ns"]) > 0 for name in ("success", "compute_infer")
    }
    return {
        "name": statistics["name"],
        "version": statistics["version"],
        "counted": {key: after[key] - before[key] for key in after},
        "measured": measured,
    }


async def _all_statistics(session: Session) -> Json:
    await classify(session)
    answer = plain(await session.ask("get_inference_statistics"))
    return [found["name"] for found in answer["model_stats"] if found["name"] == session.model]


async def _load(session: Session) -> Json:
    await session.ask("load_model", session.model)
    return "loaded"


async def _unload_other(session: Session) -> Json:
    await session.ask("unload_model", "another")
    return "unloaded"


async def _shared_memory(session: Session) -> Json:
    await session.ask("get_system_shared_memory_status")
    return "answered"


async def _trace(session: Session) -> Json:
    await session.ask("get_trace_settings", session.model)
    return "answered"


def _of(protocol: Protocol) -> list[Check]:
    digits, types = models.DIGITS, models.TYPES
    ready = [
        Check(f"{protocol}/ready/{model}", protocol, model, _model_ready, expected=True)
        for model in (digits, types)
    ]
    described = [
        Check(f"{protocol}/{what}/{model}", protocol, model, run)
        for model in (digits, types)
        for what, run in (("metadata", _metadata), ("config", _config), ("index", _index))
    ]
    return [
        Check(f"{protocol}/live", protocol, digits, _is_live, expected=True),
        Check(f"{protocol}/ready", protocol, digits, _is_ready, expected=True),
        Check(f"{protocol}/ready/version", protocol, digits, _version_ready, expected=True),
        Check(f"{protocol}/ready/unknown-version", protocol, digits, _unknown_version_ready),
        *ready,
        *described,
        Check(f"{protocol}/metadata/server", protocol, digits, _server_metadata),
        Check(f"{protocol}/metadata/version", protocol, digits, _version_metadata),
        Check(f"{protocol}/statistics", protocol, digits, _statistics),
        Check(f"{protocol}/statistics/all", protocol, digits, _all_statistics, expected=[digits]),
        Check(f"{protocol}/load", protocol, digits, _load),
        Check(f"{protocol}/unload", protocol, digits, _unload_other),
        Check(f"{protocol}/shared-memory", protocol, digits, _shared_memory),
        Check(f"{protocol}/trace-settings", protocol, digits, _trace),
    ]


CHECKS: Final = (*_of("http"), *_of("grpc"))
