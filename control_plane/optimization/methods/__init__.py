"""Optimisation methods, one module each."""
