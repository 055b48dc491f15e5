"""The servers that take part: one module each, all of them `base.Peer`."""
