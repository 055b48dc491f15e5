"""Envoy's own start-up configuration and its one public listener, as JSON-ready dicts.

Pure: paths and ports come in, dicts go out; nothing here reads a clock, a file or a socket. What changes
while requests flow is in `envoy_config` and `envoy_routes`. Fields follow Envoy's v3 API.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from control_plane.gateway import envoy_statistics
from control_plane.gateway.envoy_statistics import METADATA, status_from
from serving_agent.contract.manifest import Limits
from serving_agent.contract.wire import ROLLOUT_HEADER

Json = dict[str, Any]

ROUTE_CONFIG: Final = "public"
"""Name of the one route configuration, and of the connection manager's statistics."""
GRPC_SERVICE: Final = "inference.GRPCInferenceService"
FIELD_EXTRACTION: Final = "envoy.filters.http.grpc_field_extraction"
CHOOSE_AGAIN: Final = "signalbox.choose_again"
ENDPOINT_OF_PATH: Final = "signalbox.endpoint_of_path"
SESSION_OF_CLIENT: Final = "signalbox.session_of_client"

RETRY_AFTER_S: Final = 1
MAX_DOWNSTREAM_CONNECTIONS: Final = 8192
CONNECTION_BUFFER_BYTES: Final = 1024 * 1024
REQUEST_BUFFER_BYTES: Final = Limits().max_request_bytes + 1024 * 1024
"""Request bodies up to this size are kept until answered, so that another agent can be tried, and so that a
gRPC message's `model_name` can be read: all that an agent takes, and framing. Over HTTP/2 the stream's window
bounds what is kept, so it is as large."""
ADMIN_SOCKET_MODE: Final = 0o600
FLUSH_INTERVAL: Final = "1s"
"""Histograms become visible only when statistics are flushed."""

_TYPE = "type.googleapis.com/"
HEADER_TO_METADATA: Final = _TYPE + "envoy.extensions.filters.http.header_to_metadata.v3.Config"
_MODEL_FIELDS: Final = {
    "ModelInfer": "model_name",
    "ModelStreamInfer": "model_name",
    "ModelReady": "name",
    "ModelMetadata": "name",
    "ModelConfig": "name",
    "ModelStatistics": "name",
}
"""Request field that names the model, by method of the Open Inference Protocol (Triton's superset)."""


def bootstrap(*, admin_socket: Path, lds: Path, cds: Path) -> Json:
    """Return Envoy's bootstrap: admin on a Unix socket, listeners and clusters from watched files.

    admin_socket: path of fewer than 104 bytes; lds, cds: files that must exist before Envoy starts.
    """
    return {
        "node": {"id": "signalbox", "cluster": "signalbox"},
        "admin": {"address": {"pipe": {"path": str(admin_socket), "mode": ADMIN_SOCKET_MODE}}},
        "dynamic_resources": {"lds_config": file_source(lds), "cds_config": file_source(cds)},
        "stats_flush_interval": FLUSH_INTERVAL,
        "stats_config": envoy_statistics.stats_config(_KEPT_STATS),
        "overload_manager": {"resource_monitors": [_connection_limit()]},
    }


_KEPT_STATS: Final = ("server.", "cluster_manager.", "listener_manager.", f"http.{ROUTE_CONFIG}.")


def file_source(path: Path) -> Json:
    """Return a config source that follows *path*; Envoy sees a change only when a file is renamed onto it."""
    return {"resource_api_version": "V3", "path_config_source": {"path": str(path)}}


def _connection_limit() -> Json:
    return {
        "name": "envoy.resource_monitors.global_downstream_max_connections",
        "typed_config": {
            "@type": _TYPE
            + "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
            "max_active_downstream_connections": MAX_DOWNSTREAM_CONNECTIONS,
        },
    }


def listeners(*, port: int, rds: Path, descriptor_set: Path, units: Path) -> list[Json]:
    """Return the one listener: HTTP/1.1 and h2c on 127.0.0.1:*port*, routed by the file *rds*.

    descriptor_set: serialised `FileDescriptorSet` (imports included) of `inference.GRPCInferenceService`.
    units: file that gets a line for every request that counts by its session.
    """
    return [
        {
            "@type": _TYPE + "envoy.config.listener.v3.Listener",
            "name": ROUTE_CONFIG,
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
            # with SO_REUSEPORT a second Envoy would silently take half of the connections
            "enable_reuse_port": False,
            "per_connection_buffer_limit_bytes": CONNECTION_BUFFER_BYTES,
            "filter_chains": [{"filters": [_connection_manager(rds, descriptor_set, units)]}],
        }
    ]


def _connection_manager(rds: Path, descriptor_set: Path, units: Path) -> Json:
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": _TYPE
            + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "codec_type": "AUTO",
            "http2_protocol_options": {"initial_stream_window_size": REQUEST_BUFFER_BYTES},
            "stat_prefix": ROUTE_CONFIG,
            "use_remote_address": True,
            # a client's own id is kept: mirrored copies and the agents' logs are found by it
            "preserve_external_request_id": True,
            "early_header_mutation_extensions": [_no_rollout_of_clients()],
            "request_headers_timeout": "10s",
            "stream_idle_timeout": "300s",
            "common_http_protocol_options": {"idle_timeout": "3600s"},
            "rds": {"route_config_name": ROUTE_CONFIG, "config_source": file_source(rds)},
            "http_filters": [
                _endpoint_of_path(),
                _field_extraction(descriptor_set),
                _choose_again(),
                _session_of_client(),
                _router(),
            ],
            "access_log": [*envoy_statistics.request_loggers(), envoy_statistics.session_logger(units)],
            "local_reply_config": {"mappers": [_no_agent_mapper(), _json_error_mapper()]},
        },
    }


def _no_rollout_of_clients() -> Json:
    """Remove a client's own rollout header before anything reads it, the access log included."""
    return {
        "name": "signalbox.no_rollout_of_clients",
        "typed_config": {
            "@type": _TYPE + "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
            "mutations": [{"remove": ROLLOUT_HEADER}],
        },
    }


def _endpoint_of_path() -> Json:
    """Put the name in `/e/<name>/…` into metadata, so that a 404 can say it; off unless a route asks."""
    return {
        "name": ENDPOINT_OF_PATH,
        "disabled": True,
        "typed_config": {
            "@type": HEADER_TO_METADATA,
            "request_rules": [
                {
                    "header": ":path",
                    "on_header_present": {
                        "metadata_namespace": METADATA,
                        "key": "endpoint",
                        "regex_value_rewrite": {
                            "pattern": {"regex": r"^/(?:e|preview|v2/models)/([^/?]*).*$"},
                            "substitution": r"\1",
                        },
                    },
                }
            ],
        },
    }


def _field_extraction(descriptor_set: Path) -> Json:
    """Read the model's name out of a gRPC request; off unless a route asks."""
    return {
        "name": FIELD_EXTRACTION,
        "disabled": True,
        "typed_config": {
            "@type": _TYPE
            + "envoy.extensions.filters.http.grpc_field_extraction.v3.GrpcFieldExtractionConfig",
            "descriptor_set": {"filename": str(descriptor_set)},
            "extractions_by_method": {
                f"{GRPC_SERVICE}.{method}": {"request_field_extractions": {field: {}}}
                for method, field in _MODEL_FIELDS.items()
            },
        },
    }


def _choose_again() -> Json:
    """Choose the route anew once the model's name is known (extraction alone keeps the first choice)."""
    return {
        "name": CHOOSE_AGAIN,
        "disabled": True,
        "typed_config": {
            "@type": _TYPE + "envoy.extensions.filters.http.set_filter_state.v3.Config",
            "clear_route_cache": True,
        },
    }


def _session_of_client() -> Json:
    """Put the session that a client names into metadata; only routes say where it stands.

    Behind `choose_again`, so that it follows the route that was chosen last. It stays enabled everywhere:
    whether a filter is, Envoy decides by the route that was chosen first.
    """
    return {"name": SESSION_OF_CLIENT, "typed_config": {"@type": HEADER_TO_METADATA}}


def model_fields() -> tuple[str, ...]:
    """Return the request fields that may name the model, each once."""
    return tuple(dict.fromkeys(_MODEL_FIELDS.values()))


def _router() -> Json:
    return {
        "name": "envoy.filters.http.router",
        "typed_config": {
            "@type": _TYPE + "envoy.extensions.filters.http.router.v3.Router",
            "upstream_log": envoy_statistics.try_loggers(),
        },
    }


def _no_agent_mapper() -> Json:
    """Say which endpoint has nobody to answer: no healthy agent, or none that took the connection."""
    sentence = f"endpoint %METADATA(ROUTE:{METADATA}:endpoint)% has no ready agent"
    flags = {"response_flag_filter": {"flags": ["UH", "UF"]}}
    return {
        "filter": {"and_filter": {"filters": [flags, _not_grpc()]}},
        "headers_to_add": [header("retry-after", str(RETRY_AFTER_S))],
        "body_format_override": {"json_format": {"error": sentence}},
    }


def _json_error_mapper() -> Json:
    """Give every other error of Envoy itself the shape {"error": sentence}; agents answer for themselves."""
    return {
        "filter": {"and_filter": {"filters": [status_from(400), _not_grpc()]}},
        "body_format_override": {"json_format": {"error": "%LOCAL_REPLY_BODY%"}},
    }


def _not_grpc() -> Json:
    """Match requests whose errors are bodies: gRPC carries them in `grpc-message`, as plain text."""
    return {
        "header_filter": {
            "header": {
                "name": "content-type",
                "string_match": {"prefix": "application/grpc"},
                "invert_match": True,
                "treat_missing_header_as_empty": True,
            }
        }
    }


def header(name: str, value: str) -> Json:
    """Return a header to set on a reply, replacing one that is there."""
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
