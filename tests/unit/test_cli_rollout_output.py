from __future__ import annotations

import pytest

from control_plane.cli import rollout_output


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (None, "s", ""),
        (0.125, "share", "12.5 %"),
        (0.006218, "s", "6.22 ms"),
        (1.25, "s", "1.25 s"),
        (5.755e-05, "PSI", "0.00 PSI"),
        (0.0712, "PSI", "0.07 PSI"),
    ],
)
def test_readings_stand_in_units_that_people_read(value: float | None, unit: str, shown: str) -> None:
    assert rollout_output.figure(value, unit) == shown
