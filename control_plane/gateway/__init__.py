"""The traffic gateway: plans, their rendering for Envoy, and the process that carries them out."""
