"""Ways to look inside a model: one file for each kind, and the catalogue that chooses."""
