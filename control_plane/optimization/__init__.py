"""Making variants of a version, and measuring what they are worth."""
