"""Signalbox's control plane: registry, services, controller, gateway, telemetry, pages and command line."""
