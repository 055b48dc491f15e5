"""A plain tus client, for one request at a time."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

import httpx

TYPE = "application/offset+octet-stream"


def metadata(**pairs: str) -> str:
    """Upload-Metadata."""
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in pairs.items())


def headers(offset: int | str, **more: str) -> dict[str, str]:
    """Headers of a PATCH."""
    given = {name.replace("_", "-"): value for name, value in more.items()}
    return {"Tus-Resumable": "1.0.0", "Upload-Offset": str(offset), "Content-Type": TYPE, **given}


class Tus:
    """tus requests over *api*, an httpx client based at /api/v1."""

    def __init__(self, api: httpx.Client) -> None:
        self.api = api

    def declare(self, *sizes: int, model: str = "digits") -> str:
        """Declare files `part 0.bin`, … of these sizes; returns the upload's id."""
        files = [{"path": f"part {number}.bin", "size_bytes": size} for number, size in enumerate(sizes)]
        made = self.api.post("/uploads", json={"model": model, "files": files})
        assert made.status_code == 201, made.text
        return str(made.json()["id"])

    def create(
        self, upload_id: str, size: int, path: str = "part 0.bin", content: bytes | None = None, **more: str
    ) -> httpx.Response:
        """Begin a transfer, with *content* at once if given; more: metadata."""
        sent = {
            "Tus-Resumable": "1.0.0",
            "Upload-Length": str(size),
            "Upload-Metadata": metadata(upload=upload_id, path=path, **more),
        }
        if content is not None:
            sent["Content-Type"] = TYPE
        return self.api.post("/tus", headers=sent, content=content)

    def begin(self, *sizes: int) -> tuple[str, str]:
        """Declare files and begin with the first; returns the upload's id and the transfer's path."""
        upload_id = self.declare(*sizes)
        made = self.create(upload_id, sizes[0])
        assert made.status_code == 201, made.text
        return upload_id, made.headers["location"].removeprefix("/api/v1")

    def patch(
        self, where: str, offset: int | str, content: bytes | Iterable[bytes], **more: str
    ) -> httpx.Response:
        """Send *content*; more: headers."""
        return self.api.patch(where, headers=headers(offset, **more), content=content)

    def head(self, where: str) -> httpx.Response:
        """Ask for the offset."""
        return self.api.head(where, headers={"Tus-Resumable": "1.0.0"})

    def offset(self, where: str) -> int:
        """The offset."""
        answer = self.head(where)
        assert answer.status_code == 200, answer.status_code
        return int(answer.headers["upload-offset"])

    def delete(self, where: str) -> httpx.Response:
        """End the transfer."""
        return self.api.delete(where, headers={"Tus-Resumable": "1.0.0"})

    def upload(self, upload_id: str) -> dict[str, Any]:
        """The upload as REST shows it."""
        shown: dict[str, Any] = self.api.get(f"/uploads/{upload_id}").json()
        return shown
