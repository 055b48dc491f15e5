"""The serving page names every serving option with its real default and its real flags."""

from __future__ import annotations

import re
from pathlib import Path

import typer

from control_plane.cli.app import app
from control_plane.domain import options

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
ROWS = re.findall(r"^\| `([a-z_.]+)` \| (.+?) \| (`--.+?) \|$", PAGE, flags=re.MULTILINE)


def test_the_table_has_every_option_with_its_default() -> None:
    usual = options.flat(options.DEFAULT)
    assert {name for name, _, _ in ROWS} == set(usual)
    for name, default, _ in ROWS:
        value = usual[name]
        word = "no bound" if name == "max_concurrency" else options.told(value)
        assert default.startswith(word), name


def test_the_flags_are_those_of_deploy() -> None:
    command = typer.main.get_command(app).commands["deploy"]  # type: ignore[attr-defined]
    by_name = {each.name: {*each.opts, *each.secondary_opts} for each in command.params}
    named = [set(re.findall(r"--[a-z-]+", flags)) for _, _, flags in ROWS]
    assert all(flags in by_name.values() for flags in named)
    assert len({frozenset(flags) for flags in named}) == len(options.flat(options.DEFAULT))
