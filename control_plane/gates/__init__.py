"""Gates before traffic: what a started candidate must pass beside stable before any request reaches it."""
