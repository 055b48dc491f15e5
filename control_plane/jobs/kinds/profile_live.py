"""`profile_live`: a profile of a serving agent: it only listens, and waits for no job that measures."""

from __future__ import annotations

from typing import Final

from control_plane.domain.profile import PROFILE_LIVE
from control_plane.jobs.kinds.profile import Profile


class ProfileLive(Profile):
    """Parameters and result of `profile`."""

    name = PROFILE_LIVE
    title = "Profile a live agent"
    description = "Asks a serving agent where the time of its requests goes, while it serves."


KIND: Final = ProfileLive()
