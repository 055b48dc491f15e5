"""The peers' virtual environments: one each under `.peers/`, installed from `requirements/<name>.txt`."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PEERS: Final = ROOT / ".peers"
REQUIREMENTS: Final = Path(__file__).parent / "requirements"
TUNED_SUFFIX: Final = " (tuned)"
_STAMP: Final = ".installed"


class SetupError(RuntimeError):
    """An environment could not be built; the message holds what pip said last."""


def folder(name: str) -> Path:
    """Return the virtual environment of *name*, built or not."""
    return PEERS / name


def python(name: str) -> Path:
    """Return the interpreter of *name*'s environment."""
    return folder(name) / "bin" / "python"


def is_built(name: str) -> bool:
    """Tell whether the environment holds what its requirements file asks for today."""
    stamp = folder(name) / _STAMP
    return stamp.exists() and stamp.read_text() == _wanted(name)


def build(name: str, prepare: Callable[[Path], None]) -> None:
    """Make the environment of *name* unless it is up to date, then *prepare* it. Raises SetupError."""
    if is_built(name):
        return
    _run([sys.executable, "-m", "venv", str(folder(name))])
    pip = [str(python(name)), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    _run([*pip, "--requirement", str(REQUIREMENTS / f"{name}.txt")])
    prepare(folder(name))
    (folder(name) / _STAMP).write_text(_wanted(name))


def aside(name: str) -> Path:
    """Return the folder of packages that only a tuned variant of *name* gets, by PYTHONPATH."""
    return folder(name) / "tuned"


def install_aside(name: str) -> None:
    """Install `requirements/<name>-tuned.txt` into `aside(name)`. Raises SetupError."""
    pip = [str(python(name)), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    wanted = ["--requirement", str(REQUIREMENTS / f"{name}-tuned.txt")]
    _run([*pip, "--no-deps", "--upgrade", "--target", str(aside(name)), *wanted])


def versions(name: str) -> dict[str, str]:
    """Return what is installed in *name*'s environment: package name to version.

    Packages that only the tuned variant gets are called `<package> (tuned)`.
    """
    found = _listed(name)
    if aside(name).exists():
        tuned = _listed(name, "--path", str(aside(name)))
        found |= {f"{package}{TUNED_SUFFIX}": version for package, version in tuned.items()}
    return found


def _listed(name: str, *where: str) -> dict[str, str]:
    pip = [str(python(name)), "-m", "pip", "--disable-pip-version-check", "list", "--format", "json", *where]
    return {package["name"].lower(): package["version"] for package in json.loads(_run(pip))}


def _wanted(name: str) -> str:
    """Digest of all that *name*'s requirements say, those of its tuned variant included."""
    files = (REQUIREMENTS / f"{name}.txt", REQUIREMENTS / f"{name}-tuned.txt")
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files if file.exists())).hexdigest()


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SetupError(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    return done.stdout
