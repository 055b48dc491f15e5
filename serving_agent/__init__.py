"""The serving agent: one process that serves one version of one model."""
