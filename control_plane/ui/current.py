"""The open registry that this process' pages work on: set once by the web process (or a test)."""

from __future__ import annotations

from control_plane.services.context import Context

_installed: list[Context] = []


def use(ctx: Context) -> None:
    """Make *ctx* what every page of this process works on, in place of an earlier one."""
    _installed[:] = [ctx]


def context() -> Context:
    """The context given to `use`. Raises RuntimeError when the pages run outside the web process."""
    if not _installed:
        raise RuntimeError("pages run inside the web process: start it with `signalbox web`")
    return _installed[0]
