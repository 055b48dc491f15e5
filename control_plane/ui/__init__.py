"""The dashboard: entry script, view-models, components, look and gate."""
