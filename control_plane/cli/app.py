"""All commands, one module per noun."""

from __future__ import annotations

import typer

from control_plane.cli import (
    autotune,
    debug,
    deploy,
    endpoints,
    freeze,
    gate,
    golden,
    imports,
    optimize,
    processes,
    profile,
    push,
    rollout,
    system,
    versions,
    webhook,
)
from control_plane.cli.command import AsJson, GatewayPort, Home, WebPort

app = typer.Typer(
    name="signalbox",
    help="The control plane that takes a trained PyTorch checkpoint to production and keeps it safe there.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def common(
    context: typer.Context,
    home: Home = None,
    web_port: WebPort = None,
    gateway_port: GatewayPort = None,
    json: AsJson = False,
) -> None:
    """Take the common options before a command's name too."""
    context.obj = {"home": home, "web_port": web_port, "gateway_port": gateway_port, "json": json}


_PARTS = (
    processes, gate, push, imports, versions, deploy, endpoints, rollout, freeze, webhook, golden, optimize,
    autotune, debug, profile, system,
)  # fmt: skip
for part in _PARTS:
    part.add_to(app)
