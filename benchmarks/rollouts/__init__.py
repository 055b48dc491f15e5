"""The rollout benchmark: simulated rollouts, judged by the product's statistics and by fixed thresholds."""
