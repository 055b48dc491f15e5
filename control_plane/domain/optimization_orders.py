"""Parameters of the lab's jobs, as their rows hold them."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from control_plane.domain.optimization import Budget, Conditions, Objective
from control_plane.domain.optimization_views import CalibrationWish

OPTIMIZE: Final = "optimize"
AUTOTUNE: Final = "autotune"
REGISTER: Final = "register_variant"
MIN_MINUTES: Final = 0.1
MAX_MINUTES: Final = 24 * 60.0


class OptimizeOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Make one variant."""

    job_id: str
    """Of the job itself: names the folder that it works in."""
    ref: str
    """`model@N`."""
    method: str
    params: dict[str, Any]
    calibration: CalibrationWish | None
    conditions: Conditions
    budget: Budget


class AutotuneOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Find the best variant."""

    job_id: str
    """Of the job itself: names the folder that it works in."""
    ref: str
    objective: Objective
    minutes: float
    calibration: CalibrationWish | None
    """None: calibrated methods are left out."""
    conditions: Conditions
    budget: Budget


class RegisterOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Register the variant of a trial."""

    job_id: str
    number: int
