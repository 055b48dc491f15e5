"""docs/reference/cli.md names every command with its options and every exit code, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import typer

from control_plane.cli.app import app
from control_plane.cli.command import COMMON
from control_plane.cli.exit_codes import ExitCode

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "cli.md").read_text()
TOP = typer.main.get_command(app).commands  # type: ignore[attr-defined]
COMMANDS = TOP | {
    f"{name} {inner}": command
    for name, group in TOP.items()
    for inner, command in getattr(group, "commands", {}).items()
}


def section(command: str) -> str:
    found = re.search(rf"^##+ `signalbox {command}`\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, command
    return found[1]


def test_every_command_has_a_section_and_no_other_is_named() -> None:
    assert set(re.findall(r"^##+ `signalbox ([a-z -]+)`", PAGE, re.MULTILINE)) == set(COMMANDS)


def test_every_section_lists_the_options_of_its_command() -> None:
    for name, command in COMMANDS.items():
        own = [p for p in command.params if p.param_type_name == "option" and p.name not in {*COMMON, "help"}]
        spelled = {spelling for option in own for spelling in (*option.opts, *option.secondary_opts)}
        assert set(re.findall(r"`(--?[a-z0-9-]+)`", section(name))) == spelled, name


def test_every_section_says_what_the_help_says() -> None:
    for name, command in COMMANDS.items():
        assert command.help in section(name)


def test_every_command_takes_the_common_options() -> None:
    for command in COMMANDS.values():
        assert set(COMMON) <= {parameter.name for parameter in command.params}
    common = PAGE.split("## Exit codes")[0]
    assert all(f"--{name.replace('_', '-')}" in common for name in COMMON)


def test_every_exit_code_is_listed() -> None:
    listed = re.findall(r"^\| `(\d+)` \| ([A-Z_]+) \|", PAGE, re.MULTILINE)
    assert listed == [(str(int(code)), code.name) for code in ExitCode]
