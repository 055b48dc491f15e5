from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.platforms.exits import in_words


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (-9, "killed by the system's out-of-memory handler or by hand (SIGKILL)"),
        (-11, "crashed inside native code (SIGSEGV)"),
        (1, "its process ended by itself with exit code 1"),
        (None, "its process is gone; how it ended is not known"),
        (-1, "killed by SIGHUP"),
        (-250, "killed by signal 250"),
    ],
)
def test_exit_codes_in_words(code: int | None, words: str) -> None:
    assert in_words(code) == words


@given(st.integers(-300, 300))
def test_every_code_has_one_sentence(code: int) -> None:
    assert in_words(code)
    assert "\n" not in in_words(code)
