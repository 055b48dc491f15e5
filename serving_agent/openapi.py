"""The OpenAPI document of one agent's REST surface, made for the model it serves. Pure."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from serving_agent import openapi_schemas as schemas
from serving_agent.contract import wire
from serving_agent.contract.manifest import Manifest
from serving_agent.contract.signature import Signature
from serving_agent.contract.status import AgentStatus
from serving_agent.openapi_schemas import Schema

OPENAPI_VERSION: Final = "3.1.0"
SCHEMA_REF: Final = "#/components/schemas/"
INFER_ERRORS: Final = (400, 404, 413, 429, 500, 503, 504)
"""Every status but 200 that an inference route answers."""
DESCRIPTIONS: Final = {
    400: "The request breaks the protocol or does not fit the model's signature.",
    404: "No such model or version here.",
    405: "Refused: the control plane owns the versions.",
    413: "The body is larger than the agent accepts.",
    429: "More requests are running than the endpoint allows; `Retry-After` tells when to try again.",
    500: "The model, or the agent itself, failed on this request.",
    503: "The model is not ready or too many requests wait; `Retry-After` tells when to try again.",
    504: "No answer came in time.",
}
"""Status → when it is answered."""
RETRIED: Final = (429, 503)
"""Statuses that come with `Retry-After`."""
ABOUT: Final = """\
Open Inference Protocol v2 with Triton's extensions, for the one model version that this agent serves.

Bodies may be compressed with gzip or deflate (`Content-Encoding`), and answers are where `Accept-Encoding`
names one of them and nothing else. Every answer to an inference names the version and the artefact in the
headers `{version}` and `{digest}`.
"""
ABOUT_INFER: Final = """\
Binary tensors: the header `Inference-Header-Content-Length` of a request is the size in bytes of its JSON
part; the raw tensors follow it in the order of `inputs`: little-endian, row-major, unpadded; BOOL is one
byte, a BYTES element is preceded by its length as a uint32, BF16 is the upper half of a float32. Such an
input has
`parameters.binary_data_size` instead of `data`. Outputs come in that form when asked for with
`parameters.binary_data` (of an output) or `parameters.binary_data_output` (of the request); the answer then
has the same header and the content type `application/octet-stream`. FP16, BF16 and values that JSON cannot
carry (NaN, infinite) are best sent so.
"""


def describe(manifest: Manifest, signature: Signature) -> dict[str, Any]:
    """Return the document for an agent with *manifest* whose clients see *signature*."""
    return {
        "openapi": OPENAPI_VERSION,
        "info": {
            "title": f"{manifest.endpoint} ({manifest.version_ref})",
            "version": str(manifest.version),
            "description": ABOUT.format(version=wire.VERSION_HEADER, digest=wire.DIGEST_HEADER),
        },
        "paths": {
            **_agent_paths(),
            **_server_paths(),
            **_model_paths(manifest, signature),
            **_repository_paths(),
        },
        "components": _components(signature),
    }


def _agent_paths() -> Schema:
    return {
        "/health": {"get": _operation("What the agent is doing", {200: _json("AgentStatus", "Alive.")})},
        "/ready": {"get": _readiness("Whether the agent should get requests")},
        "/metrics": {"get": _operation("Prometheus metrics", {200: _text("The text format, 0.0.4.")})},
        "/openapi.json": {
            "get": _operation(
                "This document",
                {200: _content("application/json", {"type": "object"}, "This."), **_errors(503)},
            )
        },
        "/predict": {
            "post": {
                **_operation(
                    "Infer with plain JSON",
                    {200: _json("PredictResponse", "The predictions."), **_errors(*INFER_ERRORS)},
                ),
                "requestBody": _body("PredictRequest"),
            }
        },
    }


def _server_paths() -> Schema:
    return {
        "/v2": {"get": _operation("Server metadata", {200: _json("ServerMetadata", "The server.")})},
        "/v2/health/live": {"get": _operation("Server live", {200: _json("Liveness", "Alive.")})},
        "/v2/health/ready": {"get": _readiness("Server ready")},
    }


def _model_paths(manifest: Manifest, signature: Signature) -> Schema:
    routes = {
        "": {"get": _model_reader("Model metadata", "ModelMetadata")},
        "/config": {"get": _model_reader("Model configuration (Triton)", "ModelConfig")},
        "/stats": {"get": _model_reader("Statistics (Triton)", "Statistics")},
        "/ready": {"get": _readiness("Model ready", 404)},
        "/infer": {"post": _infer(signature)},
    }
    model = _parameter("model", [manifest.endpoint])
    version = _parameter("version", [str(manifest.version)])
    return {
        f"{prefix}{route}": {"parameters": parameters, **operations}
        for prefix, parameters in (
            ("/v2/models/{model}", [model]),
            ("/v2/models/{model}/versions/{version}", [model, version]),
        )
        for route, operations in routes.items()
    }


def _repository_paths() -> Schema:
    refused = {
        f"/v2/repository/models/{{model}}/{change}": {
            "parameters": [_parameter("model")],
            "post": _operation(f"Refused: agents do not {change} models", _errors(405)),
        }
        for change in ("load", "unload")
    }
    return {
        "/v2/repository/index": {
            "post": {
                **_operation(
                    "The served version", {200: _json("Repository", "What is served."), **_errors(400, 413)}
                ),
                "requestBody": _body("RepositoryRequest", required=False),
            }
        },
        **refused,
    }


def _components(signature: Signature) -> Schema:
    _, status = msgspec.json.schema_components((AgentStatus,), ref_template=f"{SCHEMA_REF}{{name}}")
    return {
        "schemas": {
            **status,
            "Error": schemas.ERROR,
            "Liveness": schemas.LIVENESS,
            "Readiness": schemas.READINESS,
            "ServerMetadata": schemas.SERVER_METADATA,
            "ModelMetadata": schemas.MODEL_METADATA,
            "ModelConfig": schemas.MODEL_CONFIG,
            "Statistics": schemas.STATISTICS,
            "Repository": schemas.REPOSITORY,
            "RepositoryRequest": schemas.REPOSITORY_REQUEST,
            "InferRequest": schemas.infer_request(signature),
            "InferResponse": schemas.infer_response(signature),
            "PredictRequest": schemas.predict_request(signature),
            "PredictResponse": schemas.predict_response(signature),
        },
        "responses": {str(status): _error(status) for status in DESCRIPTIONS},
    }


def _infer(signature: Signature) -> Schema:
    answer = _json("InferResponse", "The wanted outputs.")
    answer["content"]["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
    answer["headers"] = {
        wire.VERSION_HEADER: {"schema": {"type": "string"}},
        wire.DIGEST_HEADER: {"schema": {"type": "string"}},
    }
    body = _body("InferRequest")
    if example := schemas.infer_example(signature):
        body["content"]["application/json"]["example"] = example
    return {
        **_operation("Infer", {200: answer, **_errors(*INFER_ERRORS)}),
        "description": ABOUT_INFER,
        "requestBody": body,
    }


def _model_reader(summary: str, schema: str) -> Schema:
    return _operation(summary, {200: _json(schema, summary), **_errors(404, 503)})


def _readiness(summary: str, *errors: int) -> Schema:
    answers = {200: _json("Readiness", "Ready."), 503: _json("Readiness", "Not ready.")}
    return _operation(summary, {**answers, **_errors(*errors)})


def _operation(summary: str, responses: dict[int, Schema]) -> Schema:
    return {
        "summary": summary,
        "responses": {str(status): response for status, response in sorted(responses.items())},
    }


def _errors(*statuses: int) -> dict[int, Schema]:
    return {status: {"$ref": f"#/components/responses/{status}"} for status in statuses}


def _error(status: int) -> Schema:
    response = _json("Error", DESCRIPTIONS[status])
    if status in RETRIED:
        response["headers"] = {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}}
    return response


def _json(schema: str, description: str) -> Schema:
    return _content("application/json", {"$ref": f"{SCHEMA_REF}{schema}"}, description)


def _text(description: str) -> Schema:
    return _content("text/plain", {"type": "string"}, description)


def _content(kind: str, schema: Schema, description: str) -> Schema:
    return {"description": description, "content": {kind: {"schema": schema}}}


def _body(schema: str, *, required: bool = True) -> Schema:
    return {
        "required": required,
        "content": {"application/json": {"schema": {"$ref": f"{SCHEMA_REF}{schema}"}}},
    }


def _parameter(name: str, values: list[str] | None = None) -> Schema:
    schema: Schema = {"type": "string", "minLength": 1, **({"enum": values} if values else {})}
    return {"name": name, "in": "path", "required": True, "schema": schema}
