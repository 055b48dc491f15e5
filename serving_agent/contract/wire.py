"""Constants of the wire: header names, service names and extensions that agent, gateway and clients share."""

from typing import Final

VERSION_HEADER: Final = "x-signalbox-version"
"""Reply header and gRPC metadata key: `model@N`, the version that answered."""
DIGEST_HEADER: Final = "x-signalbox-digest"
"""Reply header and gRPC metadata key: `sha256:<hex>` of the artefact that answered."""
JSON_LENGTH_HEADER: Final = "inference-header-content-length"
"""Open Inference Protocol, binary tensor extension: size in bytes of the JSON part of a body."""
TIMEOUT_HEADER: Final = "x-signalbox-timeout-ms"
"""Request header that clients may set: milliseconds after which nobody waits for the answer any more."""
GATEWAY_TIMEOUT_HEADER: Final = "x-envoy-expected-rq-timeout-ms"
"""Request header that Envoy sets: milliseconds after which it gives up on the request."""
ROLLOUT_HEADER: Final = "x-signalbox-rollout"
"""Request header that the gateway sets: id of the rollout that the request is part of."""
REQUEST_ID_HEADER: Final = "x-request-id"
"""Request header that the gateway sets: the same on a request and on its copy."""

GRPC_SERVICE: Final = "inference.GRPCInferenceService"
"""Full name of the gRPC service."""
EXTENSIONS: Final = ("binary_tensor_data", "model_configuration", "statistics", "model_repository")
"""Protocol extensions that an agent advertises in its server metadata."""
SERVER_NAME: Final = "signalbox"
"""`name` in the server metadata."""
