"""The Open Inference Protocol's REST interface as an OpenAPI document, with what servers may answer besides.

Written out from the protocol's `open_inference_rest.yaml` (kserve/open-inference-protocol, Apache License
2.0): the same operations, parameters, schemas and required fields. It differs in this:

- path parameters are `{MODEL_NAME}`: the original's `${MODEL_NAME}` makes clients send a literal `$`;
- `OVERLAY_STATUSES`: the original documents no status but 200 and, for two operations, 400;
- the inference request may have an `example`, without which no generated request fits a real model.
"""

from __future__ import annotations

from typing import Any, Final

Schema = dict[str, Any]

OVERLAY_STATUSES: Final = {
    "/v2/health/ready": (503,),
    "/v2/models/{MODEL_NAME}/versions/{MODEL_VERSION}/ready": (404, 503),
    "/v2/models/{MODEL_NAME}/versions/{MODEL_VERSION}": (404, 503),
    "/v2/models/{MODEL_NAME}/versions/{MODEL_VERSION}/infer": (404, 413),
}
"""Path → statuses that this document adds; an inference's own failures (5xx) are none of them."""
ERROR: Final[Schema] = {"type": "object", "properties": {"error": {"type": "string"}}}
TEXTS: Final[Schema] = {"type": "array", "items": {"type": "string"}}
SIZES: Final[Schema] = {"type": "array", "items": {"type": "integer"}}


def document(example: Schema | None = None) -> Schema:
    """Return the document; *example* is an inference request that the server under test can answer."""
    model = "/v2/models/{MODEL_NAME}/versions/{MODEL_VERSION}"
    paths = {
        "/v2/health/live": {"get": _operation(200)},
        "/v2/health/ready": {"get": _operation(200)},
        f"{model}/ready": {"parameters": _parameters(), "get": _operation(200)},
        "/v2/": {"get": _operation(200, 400, schema="metadata_server_response")},
        model: {"parameters": _parameters(), "get": _operation(200, schema="metadata_model_response")},
        f"{model}/infer": {"parameters": _parameters(), "post": _infer(example)},
    }
    for path, statuses in OVERLAY_STATUSES.items():
        for operation in (paths[path][method] for method in ("get", "post") if method in paths[path]):
            operation["responses"] |= {str(status): {"description": "overlay"} for status in statuses}
    return {
        "openapi": "3.0.0",
        "info": {"title": "Data Plane", "version": "2.0"},
        "paths": paths,
        "components": {"schemas": _schemas()},
    }


def _parameters() -> list[Schema]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in ("MODEL_NAME", "MODEL_VERSION")
    ]


def _operation(*statuses: int, schema: str | None = None) -> Schema:
    responses: dict[str, Schema] = {}
    for status in statuses:
        responses[str(status)] = {"description": str(status)}
        content = ERROR if status != 200 else _ref(schema) if schema else None
        if content is not None:
            responses[str(status)]["content"] = {"application/json": {"schema": content}}
    return {"responses": responses}


def _infer(example: Schema | None) -> Schema:
    body: Schema = {"schema": _ref("inference_request")}
    if example is not None:
        body["example"] = example
    return {
        **_operation(200, 400, schema="inference_response"),
        "requestBody": {"content": {"application/json": body}},
    }


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(required: tuple[str, ...], **properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, **({"required": list(required)} if required else {})}


def _list_of(name: str) -> Schema:
    return {"type": "array", "items": _ref(name)}


def _schemas() -> dict[str, Schema]:
    text: Schema = {"type": "string"}
    tensor = {"name": text, "shape": SIZES, "datatype": text}
    data = {"parameters": _ref("parameters"), "data": _ref("tensor_data")}
    described, filled = ("name", "datatype", "shape"), ("name", "shape", "datatype", "data")
    return {
        "metadata_server_response": _object(
            ("name", "version", "extensions"), name=text, version=text, extensions=TEXTS
        ),
        "metadata_model_response": _object(
            ("name", "platform"),
            name=text,
            versions=TEXTS,
            platform=text,
            inputs=_list_of("metadata_tensor"),
            outputs=_list_of("metadata_tensor"),
        ),
        "metadata_tensor": _object(described, **tensor),
        "parameters": {"type": "object"},
        "tensor_data": {
            "type": "array",
            "items": {
                "anyOf": [_ref("tensor_data"), {"type": "number"}, {"type": "string"}, {"type": "boolean"}]
            },
        },
        "request_input": _object(filled, **tensor, **data),
        "request_output": _object(("name",), name=text, parameters=_ref("parameters")),
        "response_output": _object(filled, **tensor, **data),
        "inference_request": _object(
            ("inputs",),
            id=text,
            parameters=_ref("parameters"),
            inputs=_list_of("request_input"),
            outputs=_list_of("request_output"),
        ),
        "inference_response": _object(
            ("model_name", "outputs"),
            model_name=text,
            model_version=text,
            id=text,
            parameters=_ref("parameters"),
            outputs=_list_of("response_output"),
        ),
    }
