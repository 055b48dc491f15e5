"""Any order of tus requests, against a model of what must be true of one file."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import shutil
import tempfile
from pathlib import Path

import httpx
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from control_plane.api.app import create_api
from control_plane.services import tus, uploads
from control_plane.services.receiving import RunningHashes
from tests.fakes.registry import open_home
from tests.fakes.tus import headers, metadata

SIZE = 40
CONTENT = bytes(range(SIZE))


class Transfers(RuleBasedStateMachine):
    """One declared file of SIZE bytes; `kept` is what the server has promised to hold."""

    @initialize()
    def open(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="sb-tus-"))
        self.ctx = open_home(self.home)
        self.runner = asyncio.Runner()
        self.serve()
        self.upload_id = uploads.create(self.ctx, model="m", files=[("a b.bin", SIZE)], actor="ana").id
        self.where: str | None = None
        self.kept = b""
        self.ended: list[str] = []

    def serve(self) -> None:
        transport = httpx.ASGITransport(create_api(self.ctx))
        self.api = httpx.AsyncClient(transport=transport, base_url="http://test")

    def send(self, method: str, path: str, sent: dict[str, str], content: bytes = b"") -> httpx.Response:
        async def request() -> httpx.Response:
            return await self.api.request(method, path, headers=sent, content=content)

        return self.runner.run(request())

    @rule()
    def create(self) -> None:
        named = metadata(upload=self.upload_id, path="a b.bin")
        sent = {"Tus-Resumable": "1.0.0", "Upload-Length": str(SIZE), "Upload-Metadata": named}
        answer = self.send("POST", "/tus", sent)
        assert answer.status_code == 201, answer.text
        assert int(answer.headers["upload-offset"]) == len(self.kept)
        assert self.where in (None, answer.headers["location"])
        self.where = answer.headers["location"]

    @precondition(lambda self: self.where is not None)
    @rule(
        offset=st.integers(0, SIZE + 3),
        length=st.integers(0, SIZE + 3),
        corrupt=st.booleans(),
        named=st.booleans(),
    )
    def patch(self, offset: int, length: int, corrupt: bool, named: bool) -> None:
        content = (CONTENT + b"more")[offset : offset + length]
        algorithm = "sha1" if length % 2 else "sha256"
        claimed = hashlib.new(algorithm, content + b"!" * corrupt).digest()
        more = {"Upload_Checksum": f"{algorithm} {base64.b64encode(claimed).decode()}"} if named else {}
        answer = self.send("PATCH", str(self.where), headers(offset, **more), content)
        if offset + len(content) > SIZE:
            assert answer.status_code == 413
        elif offset != len(self.kept):
            assert answer.status_code == 409
        elif named and corrupt and len(self.kept) < SIZE:
            assert answer.status_code == 460
        else:
            assert answer.status_code == 204, answer.text
            self.kept += content
            assert int(answer.headers["upload-offset"]) == len(self.kept)

    @precondition(lambda self: self.where is not None)
    @rule(length=st.integers(1, SIZE))
    def go_on(self, length: int) -> None:
        offset = len(self.kept)
        self.patch(offset, min(length, SIZE - offset), corrupt=False, named=False)

    @precondition(lambda self: self.where is not None)
    @rule()
    def end(self) -> None:
        assert self.send("DELETE", str(self.where), {"Tus-Resumable": "1.0.0"}).status_code == 204
        self.ended.append(str(self.where))
        self.where, self.kept = None, b""

    @rule()
    def restart_the_server(self) -> None:
        tus._HASHES.__init__()  # type: ignore[misc]  # a new process knows no running hash
        assert isinstance(tus._HASHES, RunningHashes)
        self.runner.run(self.api.aclose())
        self.serve()

    @precondition(lambda self: self.where is not None)
    @rule()
    def a_killed_process_leaves_more_than_it_recorded(self) -> None:
        part = self.ctx.settings.uploads_dir / self.upload_id / "partial" / str(self.where).rsplit("/", 1)[1]
        if part.exists():
            with part.open("ab") as file:
                file.write(b"?")

    @invariant()
    def the_server_says_what_it_holds(self) -> None:
        if not hasattr(self, "api"):
            return
        for ended in self.ended[-2:]:
            assert self.send("HEAD", ended, {"Tus-Resumable": "1.0.0"}).status_code == 404
        if self.where is not None:
            answer = self.send("HEAD", self.where, {"Tus-Resumable": "1.0.0"})
            assert (answer.status_code, answer.headers["upload-offset"]) == (200, str(len(self.kept)))

    @invariant()
    def a_file_appears_whole_or_not_at_all(self) -> None:
        if not hasattr(self, "api"):
            return
        whole = uploads.folder(self.ctx, self.upload_id) / "a b.bin"
        assert whole.exists() == (len(self.kept) == SIZE)
        shown = uploads.get(self.ctx, self.upload_id).files[0]
        if whole.exists():
            assert whole.read_bytes() == self.kept == CONTENT
        assert shown.sha256 == (hashlib.sha256(CONTENT).hexdigest() if whole.exists() else None)

    def teardown(self) -> None:
        if hasattr(self, "api"):
            self.runner.run(self.api.aclose())
            self.runner.close()
            self.ctx.engine.dispose()
            shutil.rmtree(self.home)


TestTransfers = Transfers.TestCase
TestTransfers.settings = settings(
    max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
