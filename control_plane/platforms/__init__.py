"""Where serving agents run: one file per platform, one catalogue line."""
