"""`signalbox`: everything a person or a script does with Signalbox from a terminal.

Commands that change or read anything go through the REST API of the web process, with the same rules as the
pages; only `up`, `web`, `controller`, `worker` and `migrate` work on this machine themselves.
"""


def main() -> None:
    """Run the command line and exit with one of the codes in `exit_codes`."""
    from control_plane.cli.app import app

    app(prog_name="signalbox")
