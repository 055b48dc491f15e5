"""Speedscope as it is vendored (`vendor/speedscope/`), how to vendor it anew, and how it opens a profile.

    python -m control_plane.ui.components.speedscope_client

fetches VERSION from the npm registry, checks what came against TARBALL_SHA512, and replaces the vendored
files. Its sample profile and its reader of Java recordings are left out. The dashboard serves it itself; it
loads nothing from elsewhere.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final
from urllib.parse import quote

import httpx

from control_plane.ui.components import tus_client

VERSION: Final = "1.25.0"
TARBALL: Final = f"https://registry.npmjs.org/speedscope/-/speedscope-{VERSION}.tgz"
TARBALL_SHA512: Final = (
    "cpf9HWTZf1ijLXBJrk87Ve/54tnYx6rlf0gUThvn3ook6h63hLXVOQiMf44PT+XoV503cPfvfiT5gP5vojp6Ag=="
)
"""Integrity of the package as the registry names it: base64."""
SHA256: Final = {
    "index.html": "6388a3a5e74c5dd60352cff13a26154a76770fdddc488ecef8992531f3c1744f",
    "speedscope-Y2522XSH.js": "12b7fcfa95b1f07633886569903e0117043d810c83951ac9084e34c689ef1044",
    "speedscope-GHPHNKXC.css": "0f823f58242a0ca365d46761dd99034626931157a08e24dd667b310363209bc9",
    "SourceCodePro-Regular.ttf-ILST5JV6.woff2": (
        "8badfe75c98da1e8315a52619f177def4618350f7b3e496baf5b8894da2c2ac0"
    ),
    "favicon-16x16-VSI62OPJ.png": "a62a6da7742b43ee798b106b709aa82eafd1b500ef050427cfec05e4d41dacac",
    "favicon-32x32-3EB2YCUY.png": "9ea6e6d13b7b8064187866deba1e8674d8ba25071279ba7b15f34b54df2508d0",
    "favicon-FOKUP5Y5.ico": "45701858a8fe9daccd63d2cb5749fdbd155a471b5fc391d04f3f61d18a9efcdd",
    "file-format-schema.json": "03d098921294fca54ac1b67ea050138d867e44228c7cb140d958fbdfe345c911",
    "speedscope.LICENSE": "6244b13e9bf25cfd42d81c939d6c535d932596e8c320050234f2c2ac5a6f36a0",
    "source-code-pro.LICENSE": "2e14ee65e55dbcc7d66347cd7c76a10a1a18ac49dd7989a2b3838b479676f746",
}
"""Of the vendored files, hexadecimal."""
FOLDER: Final = Path(__file__).parent / "vendor" / "speedscope"
ROUTE: Final = "/assets/speedscope"
_RENAMED: Final = {
    "speedscope.LICENSE": "package/LICENSE",
    "source-code-pro.LICENSE": "package/dist/release/source-code-pro.LICENSE.md",
}


def address(profile_url: str, title: str) -> str:
    """The address at which Speedscope opens the profile at *profile_url*, a path on our own origin."""
    return f"{ROUTE}/index.html#profileURL={quote(profile_url, safe='')}&title={quote(title, safe='')}"


def extracted(tarball: bytes) -> dict[str, bytes]:
    """The vendored files out of the package. Raises ValueError when it is not the expected one."""
    members = {name: _RENAMED.get(name, f"package/dist/release/{name}") for name in SHA256}
    return tus_client.members_of(tarball, TARBALL, TARBALL_SHA512, members)


def main() -> int:
    """Vendor the files anew; 0 when they are there."""
    answer = httpx.get(TARBALL, follow_redirects=True, timeout=60).raise_for_status()
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, content in extracted(answer.content).items():
        (FOLDER / name).write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
