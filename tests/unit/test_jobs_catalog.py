"""Kinds of jobs: listed without torch, all registered, and described."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from control_plane.domain.job import LAB_KINDS, Lane, lane_of
from control_plane.errors import InvalidInputError
from control_plane.jobs import catalog, processes


def test_listing_imports_no_torch() -> None:
    code = (
        "import sys; from control_plane.jobs import catalog; catalog.kinds();"
        "print([m for m in ('torch', 'sklearn', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_catalogue_names_every_module_on_disk() -> None:
    folder = Path(catalog.__file__).parent / "kinds"
    assert {module.rpartition(".")[2] for module in catalog.MODULES} == {
        path.stem for path in folder.glob("*.py") if path.stem != "__init__"
    }


@pytest.mark.parametrize("kind", catalog.kinds(), ids=lambda kind: kind.name)
def test_kind_tells_what_it_does(kind: object) -> None:
    assert catalog.get(kind.name) is kind  # type: ignore[attr-defined]
    assert kind.title  # type: ignore[attr-defined]
    assert kind.description.endswith(".")  # type: ignore[attr-defined]


def test_unknown_kind_lists_the_known_ones() -> None:
    with pytest.raises(InvalidInputError, match=r"known kinds are check, .*example"):
        catalog.get("bake")


def test_process_is_named_by_pid_and_creation_time() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        created = processes.started_at(process.pid)
        assert created is not None
        assert processes.is_alive(process.pid, created)
        assert not processes.is_alive(process.pid, created - 60)
        process.kill()
        process.wait()
        assert not processes.is_alive(process.pid, created)
        assert processes.started_at(process.pid) is None


@pytest.mark.parametrize(("code", "words"), [(3, "exit code 3"), (-9, "out of memory"), (-11, "SIGSEGV")])
def test_death_is_told_in_words(code: int, words: str) -> None:
    assert words in processes.death_sentence(code)


def test_lanes_name_kinds_that_exist() -> None:
    assert set(LAB_KINDS) < set(catalog.names())
    assert {kind: lane_of(kind) for kind in catalog.names() if kind in LAB_KINDS} == dict.fromkeys(
        LAB_KINDS, Lane.LAB
    )
    assert lane_of("profile_live") is Lane.LIVE, "it only listens: it waits for nothing that measures"
    assert lane_of("gates") is lane_of("unheard of") is Lane.MAIN
