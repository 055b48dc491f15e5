"""Every reason code is documented, and nothing is documented that does not exist."""

from __future__ import annotations

import re
from pathlib import Path

from control_plane.admission.reasons import ReasonCode
from control_plane.jobs.kinds import check
from control_plane.services import fetched_files

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "reason-codes.md"


def documented() -> list[str]:
    return re.findall(r"^\| `([^`]+)` \|", PAGE.read_text(), flags=re.MULTILINE)


def test_page_lists_exactly_the_codes() -> None:
    assert sorted(documented()) == sorted([*ReasonCode, check.CHECK_FAILED, fetched_files.FETCH_FAILED])


def test_every_code_is_used_somewhere() -> None:
    sources = [
        path.read_text()
        for package in ("admission", "jobs")
        for path in (PAGE.parents[2] / "control_plane" / package).rglob("*.py")
        if path.name != "reasons.py"
    ]
    unused = [code for code in ReasonCode if not any(f"ReasonCode.{code.name}" in text for text in sources)]
    assert not unused
