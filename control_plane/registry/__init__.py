"""The registry: tables, sessions, queries by noun, and the artefact store."""
