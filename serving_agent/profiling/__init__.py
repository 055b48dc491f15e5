"""Profilers of a version, and of the live agent that serves it."""
