"""A confined process does none of what hostile code would try, and all that a check needs."""

from __future__ import annotations

import platform
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from control_plane.admission import seccomp
from tests.fakes import hostile_acts

REPOSITORY = Path(__file__).parents[2]
ALLOWED = ("read own file", "write own file", "make own folder")
ENDS_IT = ("burn processor time",)
BLOCKED = sorted(
    set(hostile_acts.acts(Path("r"), Path("w"))) - {*ALLOWED, *ENDS_IT}
    - (set() if platform.machine() == "x86_64" else {"call by foreign numbers"})
)  # fmt: skip
HARMLESS_WHEN_FREE = (
    "read passwords", "list the root", "read outside", "write outside", "truncate what it reads",
    "link outside", "hard link of what it reads", "change rights", "make a pipe", "connect by TCP",
    "connect by UDP", "bind an abstract socket", "spawn a shell", "become another program", "start a thread",
    "signal its parent", "write a large file", "change the times", "tie its parent to a processor",
    "attach shared memory",
)  # fmt: skip
"""Acts that do succeed without confinement, so that their failing means something."""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("readable", "writable", "outside"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("own")
    return tmp_path


def act(name: str, place: Path, *more: str) -> subprocess.CompletedProcess[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        (place / "readable" / "port").write_text(str(server.getsockname()[1]))
        return subprocess.run(
            [
                sys.executable, "-m", "tests.fakes.hostile_acts", name, str(place / "readable"),
                str(place / "writable"), *more,
            ],
            capture_output=True,
            text=True,
            cwd=REPOSITORY,
            timeout=60,
        )  # fmt: skip


@pytest.fixture(scope="module")
def level(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What this kernel gives."""
    home = tmp_path_factory.mktemp("level")
    for name in ("readable", "writable"):
        (home / name).mkdir()
        (home / name / "file").write_text("own")
    return act("read own file", home).stdout.rpartition(" ")[0].removesuffix(" succeeded")


@pytest.mark.parametrize("name", ALLOWED)
def test_its_own_files_stay_in_reach(name: str, place: Path) -> None:
    assert act(name, place).stdout.strip().endswith("succeeded")


@pytest.mark.parametrize("name", BLOCKED)
def test_hostile_act_is_blocked(name: str, place: Path, level: str) -> None:
    if level != "S0":
        pytest.skip(f"this kernel gives {level!r} only")
    done = act(name, place)
    assert done.stdout.startswith("S0 blocked"), done
    assert (place / "readable" / "file").read_text() == "own"
    assert not (place / "outside" / "new").exists()


@pytest.mark.parametrize("name", HARMLESS_WHEN_FREE)
def test_act_succeeds_without_confinement(name: str, place: Path) -> None:
    assert act(name, place, "free").stdout.strip().endswith("succeeded")


def test_processor_time_ends(place: Path) -> None:
    assert act("burn processor time", place).returncode == -signal.SIGXCPU


def test_file_does_not_grow_beyond_its_limit(place: Path) -> None:
    assert "blocked" in act("write a large file", place).stdout
    assert (place / "writable" / "large").stat().st_size == hostile_acts.FILE_BYTES


def test_filters_jump_within_their_program() -> None:
    for machine in seccomp.MACHINES.values():
        for threads in (True, False):
            program = seccomp.program(machine, 4711, threads=threads)
            for index, (code, if_true, if_false, _) in enumerate(program):
                if code in (seccomp.EQUAL, seccomp.AT_LEAST):
                    assert index + 1 + max(if_true, if_false) < len(program)
            assert program[-1] == (seccomp.RETURN, 0, 0, seccomp.ALLOW)


def run_filter(program: list[seccomp.Instruction], data: dict[int, int]) -> int:
    """What classic BPF answers for the words of `seccomp_data` in *data*."""
    held, index = 0, 0
    while True:
        code, if_true, if_false, value = program[index]
        index += 1
        if code == seccomp.LOAD:
            held = data.get(value, 0)
        elif code == seccomp.MASK:
            held &= value
        elif code == seccomp.RETURN:
            return value
        elif code == seccomp.EQUAL:
            index += if_true if held == value else if_false
        else:
            index += if_true if held >= value else if_false


@pytest.mark.parametrize("name", seccomp.MACHINES)
def test_filter_denies_what_is_listed_and_nothing_else(name: str) -> None:
    machine = seccomp.MACHINES[name]
    program = seccomp.program(machine, 4711, threads=False)

    def answer(number: int, first: int = 0, arch: int = machine.arch) -> int:
        return run_filter(program, {0: number, 4: arch, 16: first})

    listed = {numbers[machine.column] for numbers in (seccomp.CALLS | seccomp.STARTS).values()} - {None}
    own = {numbers[machine.column] for numbers in seccomp.OWN_ALONE.values()}
    for number in range(500):
        allowed = answer(number, first=4711) == seccomp.ALLOW
        assert allowed == (number not in listed), number
        assert (answer(number, first=1) == seccomp.ALLOW) == (number not in listed | own), number
    clone = seccomp.STARTS["clone"][machine.column]
    with_threads = seccomp.program(machine, 4711, threads=True)
    of_pthread, of_fork, with_namespace = 0x3D0F00, 0x1200011, 0x3F0F00
    for flags, allowed in ((of_pthread, True), (of_fork, False), (with_namespace, False)):
        answered = run_filter(with_threads, {0: clone or 0, 4: machine.arch, 16: flags})
        assert (answered == seccomp.ALLOW) == allowed
        assert answer(clone or 0, first=flags) == seccomp.DENY
    mmap = seccomp.MMAP[machine.column]
    for flags, allowed in ((0x21, False), (0x23, False), (0x22, True), (0x01, True), (0x4022, True)):
        assert (run_filter(program, {0: mmap, 4: machine.arch, 40: flags}) == seccomp.ALLOW) == allowed
    assert answer(0, arch=0x40000003) == seccomp.KILL
    assert answer(0x40000000 + 1) == seccomp.DENY
