"""tus-js-client as it is vendored (`vendor/`), and how to vendor it anew.

    python -m control_plane.ui.components.tus_client

fetches VERSION from the npm registry, checks what came against TARBALL_SHA512, and replaces the vendored
files. The dashboard serves the script itself and loads nothing from elsewhere.
"""

from __future__ import annotations

import base64
import hashlib
import io
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import httpx

VERSION: Final = "4.3.1"
TARBALL: Final = f"https://registry.npmjs.org/tus-js-client/-/tus-js-client-{VERSION}.tgz"
TARBALL_SHA512: Final = (
    "ZLeYmjrkaU1fUsKbIi8JML52uAocjEZtBx4DKjRrqzrZa0O4MYwT6db+oqePlspV+FxXJAyFBc/L5gwUi2OFsg=="
)
"""Integrity of the package as the registry names it: base64."""
SHA256: Final = {
    "tus.min.js": "8cbb1b63fccc3bba0ae73ad1deb160ce046c3750851d0c3e94921ae3ef070eb8",
    "tus-js-client.LICENSE": "2ec372e137fa65938a6551e9abaa3d3ea21f5ebd398fca00a13354ea881e6539",
}
"""Of the vendored files, hexadecimal."""
FOLDER: Final = Path(__file__).parent / "vendor"
SCRIPT: Final = FOLDER / "tus.min.js"
ADDRESS: Final = f"/assets/tus.min.js?v={VERSION}"
_MEMBERS: Final = {
    "tus.min.js": "package/dist/tus.min.js",
    "tus-js-client.LICENSE": "package/LICENSE",
}


def extracted(tarball: bytes) -> dict[str, bytes]:
    """The vendored files out of the package. Raises ValueError when it is not the expected one."""
    return members_of(tarball, TARBALL, TARBALL_SHA512, _MEMBERS)


def members_of(tarball: bytes, source: str, sha512: str, members: Mapping[str, str]) -> dict[str, bytes]:
    """*members* of the package from *source*, by the names they get here. Raises ValueError (see above)."""
    found = base64.b64encode(hashlib.sha512(tarball).digest()).decode()
    if found != sha512:
        raise ValueError(f"{source} has the SHA-512 {found}, not {sha512}")
    with tarfile.open(fileobj=io.BytesIO(tarball), mode="r:gz") as package:
        return {name: _read(package, member) for name, member in members.items()}


def _read(package: tarfile.TarFile, member: str) -> bytes:
    file = package.extractfile(member)
    if file is None:
        raise ValueError(f"the package holds no file {member}")
    return file.read()


def main() -> int:
    """Vendor the files anew; 0 when they are there."""
    answer = httpx.get(TARBALL, follow_redirects=True, timeout=60).raise_for_status()
    FOLDER.mkdir(exist_ok=True)
    for name, content in extracted(answer.content).items():
        (FOLDER / name).write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
