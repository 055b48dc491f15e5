"""Page scripts, one thin file a page."""
