"""Artefact formats: how models are opened."""
