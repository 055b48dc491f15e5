"""Who vouches for a version: the signing key, and statements of what versions are made of."""
