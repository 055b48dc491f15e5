"""Every optimisation method on four models, against eager fp32: `python -m benchmarks.optimization`."""
