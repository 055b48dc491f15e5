"""Measurements over time: of Envoy, agents and the host, kept in a local store, read as series."""

from control_plane.telemetry.live import live_bundle
from control_plane.telemetry.local_store import LocalStore
from control_plane.telemetry.series import CATALOG, Line, Series

__all__ = ["CATALOG", "Line", "LocalStore", "Series", "live_bundle"]
