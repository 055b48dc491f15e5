"""The REST API over real HTTP: every noun, every refusal."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from control_plane.api import guard
from control_plane.services import endpoints, uploads, versions
from control_plane.services.context import Context
from tests.fakes.api_server import serving
from tests.fakes.registry import open_home, register
from tests.fakes.waiting import wait_until


@pytest.fixture
def ctx(tmp_path: Path) -> Iterator[Context]:
    context = open_home(tmp_path / "home", gateway_port=1, max_upload_bytes=10_000_000)
    yield context
    context.engine.dispose()


@pytest.fixture
def port(ctx: Context) -> Iterator[int]:
    with serving(ctx) as port:
        yield port


@pytest.fixture
def api(port: int) -> Iterator[httpx.Client]:
    with httpx.Client(
        base_url=f"http://127.0.0.1:{port}/api/v1", headers={"X-Signalbox-Actor": "ana"}, trust_env=False
    ) as client:
        yield client


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The error of *answer*, which must have the shape that all errors have."""
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"code", "message", "next_step", "details"}
    assert error["code"] == code
    assert "Traceback" not in answer.text
    assert "/home/" not in answer.text
    return error


def new_upload(api: httpx.Client, path: str, data: bytes) -> str:
    body = {"model": "digits", "files": [{"path": path, "size_bytes": len(data)}]}
    created = api.post("/uploads", json=body)
    assert created.status_code == 201, created.text
    return str(created.json()["id"])


def test_models_and_versions(api: httpx.Client, ctx: Context) -> None:
    register(ctx, labels=["zero"])
    register(ctx)
    page = api.get("/versions", params={"q": "digits", "page_size": 1}).json()
    assert (page["total"], page["items"][0]["ref"], page["page_size"]) == (2, "digits@2", 1)
    one = api.get("/models/digits/versions/1").json()
    assert one["signature"]["inputs"][0] == {"name": "image", "datatype": "FP32", "shape": [-1, 1, 8, 8]}
    assert api.put("/models/digits/aliases/stable", json={"version": 2}).json()["aliases"] == {
        "stable": "digits@2"
    }
    assert api.get("/models/digits/versions/stable").json()["ref"] == "digits@2"
    assert api.put("/models/digits/versions/1/tags/stage", json={"value": "ünï"}).json()["tags"] == {
        "stage": "ünï"
    }
    assert api.delete("/models/digits/versions/1/tags/stage").status_code == 204
    assert api.patch("/models/digits/versions/1", json={"archived": True}).json()["archived_at"] is not None
    refused(api.delete("/models/digits/versions/2"), 409, "in_use")
    assert api.delete("/models/digits/aliases/stable").status_code == 204
    assert api.put("/models/digits/aliases/champion", json={"version": 2}).status_code == 200
    assert api.patch("/models/digits/versions/1", json={"archived": False}).status_code == 200
    refused(api.put("/models/digits/aliases/champion", json={"version": 1}), 409, "conflict")
    refused(api.delete("/models/digits/aliases/champion"), 409, "conflict")
    versions.set_alias(ctx, "digits", "champion", 1, actor="rollout", by_rollout=True)
    assert api.delete("/models/digits/versions/2").status_code == 204
    refused(api.get("/models/digits/versions/2"), 404, "not_found")
    assert api.get("/models/digits/versions/1/examples").json() == []
    assert [model["name"] for model in api.get("/models").json()["items"]] == ["digits"]
    assert api.get("/events", params={"actor": "ana", "subject": "digits@2"}).json()["total"] >= 2


def test_endpoints_and_conflicts(api: httpx.Client, ctx: Context) -> None:
    register(ctx)
    made = api.put("/endpoints/digits", json={"version": "digits@1", "replicas": 2, "expected_revision": 0})
    assert (made.json()["revision"], made.json()["health"]) == (1, "starting")
    assert api.post("/endpoints/digits/scale", json={"replicas": 3}).json()["replicas"] == 3
    error = refused(
        api.post(
            "/endpoints/digits/stop", json={"expected_revision": 1}, headers={"X-Signalbox-Actor": "bo"}
        ),
        409,
        "conflict",
    )
    assert error["details"]["changed_by"] == "ana"
    assert api.post("/endpoints/digits/restart").json()["revision"] == 3
    assert api.post("/endpoints/digits/stop").json()["goal"] == "stopped"
    assert api.post("/endpoints/digits/start").json()["goal"] == "running"
    assert api.get("/endpoints/digits/signature").json()["outputs"][0]["name"] == "logits"
    assert api.get("/endpoints/digits/history").json()["items"][0]["action"] == "endpoint.started"
    assert api.get("/endpoints/digits/agents").json() == []
    refused(api.post("/endpoints/digits/predict", json={"input": [1]}), 503, "unavailable")
    assert api.delete("/endpoints/digits").status_code == 202
    assert api.get("/endpoints").json()[0]["goal"] == "deleted"
    refused(api.get("/agents/nobody/log"), 404, "not_found")


def test_jobs(api: httpx.Client) -> None:
    job = api.post("/jobs", json={"kind": "example", "params": {}}).json()
    assert (job["state"], job["created_by"]) == ("queued", "ana")
    assert api.get("/jobs", params={"state": "queued"}).json()["total"] == 1
    assert api.get(f"/jobs/{job['id']}/log").json() == {"lines": []}
    assert api.post(f"/jobs/{job['id']}/cancel").json()["state"] == "cancelled"
    assert api.post(f"/jobs/{job['id']}/retry").json()["state"] == "queued"
    assert (
        "known kinds are"
        in refused(api.post("/jobs", json={"kind": "nope"}), 400, "invalid_input")["message"]
    )


def test_status_live_catalogs_and_apply(api: httpx.Client, ctx: Context) -> None:
    register(ctx)
    assert api.get("/status").json()["versions"] == 1
    assert "panels" in api.get("/live", params={"range_s": 900}).json()
    names = {handler["name"] for handler in api.get("/catalogs").json()["handlers"]}
    assert {"tensor", "image-classification"} <= names
    document = "deployments:\n  - {endpoint: digits, version: digits@1}\n"
    tried = api.post("/apply", json={"document": document, "dry_run": True}).json()
    assert (tried["applied"], len(tried["changes"])) == (False, 1)
    assert api.get("/endpoints").json() == []
    assert api.post("/apply", json={"document": document}).json()["changes"] == tried["changes"]
    assert api.post("/apply", json={"document": document}).json()["changes"] == []
    wrong = refused(api.post("/apply", json={"document": "deployment: []"}), 400, "invalid_input")
    assert wrong["details"]["problems"][0]["line"] == 1


@pytest.mark.parametrize(
    "path", ["model.pt", "a b/ünï çode/模型.bin", "100%.pt", "x#y?z=1&w.pt", "a+b/c;d.bin"]
)
def test_file_bodies_reach_the_disk_under_odd_names(api: httpx.Client, ctx: Context, path: str) -> None:
    data = bytes(range(256)) * 20_000
    upload_id = new_upload(api, path, data)
    sent = api.put(f"/uploads/{upload_id}/files/{quote(path, safe='/')}", content=data)
    assert sent.json()["received_bytes"] == len(data), sent.text
    assert (uploads.folder(ctx, upload_id) / path).read_bytes() == data
    assert api.post(f"/uploads/{upload_id}/complete").json()["state"] == "checking"
    refused(api.put(f"/uploads/{upload_id}/files/{quote(path, safe='/')}", content=data), 409, "conflict")
    assert api.delete(f"/uploads/{upload_id}").json()["state"] == "cancelled"


TRAVERSALS = [
    "../x", "..%2fx", "%2e%2e/x", "%2e%2e%2fx", "%252e%252e%252fx", "..%5cx", "..%255cx", "%2fetc%2fpasswd",
    "/etc/passwd", "//etc/passwd", "a/../../x", "a/%2e%2e/%2e%2e/x", "..;/x", ".%2e/x", "%c0%ae%c0%ae/x",
    "..%00/x", "model.pt%00.jpg", "%ef%bc%8e%ef%bc%8e/x", "..%e2%81%84x", "file:%2f%2f%2fetc", "~%2fx",
    "C:%5cx", "model.pt/..", "model.pt/", "./model.pt", "a/b/../../model.pt/../../../x",
]  # fmt: skip


@pytest.mark.parametrize("spelling", TRAVERSALS)
def test_no_spelling_leads_out_of_the_upload(
    port: int, api: httpx.Client, ctx: Context, spelling: str
) -> None:
    """Sent as raw bytes: clients tidy paths up before they send them."""
    upload_id = new_upload(api, "model.pt", b"evil")
    before = {path for path in ctx.settings.root.rglob("*") if path.is_file()}
    with socket.create_connection(("127.0.0.1", port)) as raw:
        target = f"/api/v1/uploads/{upload_id}/files/{spelling}"
        head = f"PUT {target} HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nConnection: close\r\n\r\n"
        raw.sendall(head.encode() + b"evil")
        answer = b""
        while block := raw.recv(65536):
            answer += block
    assert answer.split()[1] in (b"400", b"404", b"405"), answer
    after = {path for path in ctx.settings.root.rglob("*") if path.is_file()}
    assert after == before
    body = {"model": "digits", "files": [{"path": spelling, "size_bytes": 4}]}
    assert api.post("/uploads", json=body).status_code == 400


@pytest.mark.parametrize(
    "name", ["..;", "%2e%2e", "..%2f..%2fetc", "A", "a%00", "a%20b", "a" * 64, "a%0d%0ab"]
)
def test_no_name_leads_anywhere(api: httpx.Client, name: str) -> None:
    for method, path, body in (
        ("GET", f"/models/{name}/versions/1", None),
        ("PUT", f"/endpoints/{name}", {"version": "digits@1"}),
        ("PUT", f"/models/digits/aliases/{name}", {"version": 1}),
        ("PUT", f"/models/digits/versions/1/tags/{name}", {"value": "x"}),
    ):
        answer = api.request(method, path, json=body)
        assert 400 <= answer.status_code < 406, (path, answer.text)


def test_a_client_that_vanishes_mid_body_leaves_the_upload_receiving(
    port: int, api: httpx.Client, ctx: Context
) -> None:
    upload_id = new_upload(api, "model.pt", b"x" * 1_000_000)
    partial = ctx.settings.uploads_dir / upload_id / "partial"
    target = f"/api/v1/uploads/{upload_id}/files/model.pt"
    head = f"PUT {target} HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port)) as raw:
        raw.sendall(head.encode() + b"x" * 200_000)
        wait_until(lambda: list(partial.glob("*")), timeout_s=10, what=lambda: "a partial file")
    assert uploads.get(ctx, upload_id).state == "receiving"
    sent = api.put(f"/uploads/{upload_id}/files/model.pt", content=b"x" * 1_000_000)
    assert sent.json()["received_bytes"] == 1_000_000


def test_the_wrong_number_of_bytes_is_said_even_after_a_long_body(api: httpx.Client) -> None:
    upload_id = new_upload(api, "model.pt", b"x" * 10)
    error = refused(
        api.put(f"/uploads/{upload_id}/files/model.pt", content=b"x" * 8_000_000), 400, "invalid_input"
    )
    assert "10 were declared" in error["message"]

    def chunks() -> Iterator[bytes]:
        for _ in range(40):
            yield b"x" * 200_000

    refused(api.put(f"/uploads/{upload_id}/files/model.pt", content=chunks()), 413, "too_large")


def test_the_api_answers_while_a_slow_body_comes(port: int, api: httpx.Client, ctx: Context) -> None:
    upload_id = new_upload(api, "model.pt", b"x" * 1000)
    head = (
        f"PUT /api/v1/uploads/{upload_id}/files/model.pt HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port)) as raw:
        raw.sendall(head.encode() + b"x" * 10)
        assert api.get("/endpoints").status_code == 200


def test_bodies_are_bounded_typed_and_strict(api: httpx.Client, ctx: Context) -> None:
    register(ctx)
    big = json.dumps({"document": "#" * (guard.JSON_LIMIT_BYTES + 1)})
    head = {"content-type": "application/json"}
    refused(api.post("/apply", content=big, headers=head), 413, "too_large")
    refused(api.post("/apply", content=iter([big.encode()]), headers=head), 413, "too_large")
    for media_type in (
        "application/x-pickle",
        "application/octet-stream",
        "text/plain",
        "multipart/form-data",
    ):
        refused(
            api.post("/jobs", content=b'{"kind": "example"}', headers={"content-type": media_type}),
            415,
            "unsupported_media_type",
        )
    for wrong in (
        {"version": "digits@1", "replica": 2},
        {"version": 1},
        {"version": "digits@1", "replicas": "2"},
        {"version": "digits@1", "replicas": True},
        {},
        [],
    ):
        refused(api.put("/endpoints/x", json=wrong), 400, "invalid_input")
    for text in (b"{", b"[" * 100_000, b'{"version": "\xff"}'):
        refused(api.put("/endpoints/x", content=text, headers=head), 400, "invalid_input")
    assert endpoints.list_all(ctx) == ()


def test_other_sites_are_refused_and_our_own_page_is_not(api: httpx.Client, port: int) -> None:
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": f"http://127.0.0.1:{port}", "Sec-Fetch-Site": "same-site"},
    ):
        refused(api.post("/jobs", json={"kind": "example"}, headers=headers), 403, "forbidden")
    ours = {"Origin": f"http://127.0.0.1:{port}", "Sec-Fetch-Site": "same-origin"}
    assert api.post("/jobs", json={"kind": "example"}, headers=ours).status_code == 201


def test_unknown_routes_and_methods_answer_in_our_shape(api: httpx.Client) -> None:
    refused(api.get("/nothing"), 404, "not_found")
    refused(api.delete("/status"), 405, "method_not_allowed")
    refused(api.get("/versions", params={"page": 0}), 400, "invalid_input")
    refused(
        api.post("/jobs", json={"kind": "example"}, headers={"X-Signalbox-Actor": "x" * 100}),
        400,
        "invalid_input",
    )
    assert api.get("/docs").status_code == 404


def test_an_unexpected_error_is_an_id_and_the_log_has_the_rest(
    api: httpx.Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def explode(*_: object, **__: object) -> None:
        raise RuntimeError("secret /home/ana/path")

    monkeypatch.setattr(versions, "search", explode)
    with caplog.at_level(logging.ERROR):
        error = refused(api.get("/versions"), 500, "internal")
    assert "secret" not in json.dumps(error)
    assert error["details"]["error_id"] in caplog.text
    assert "secret" in caplog.text


def test_the_description_lists_every_route_with_a_sentence(api: httpx.Client) -> None:
    described = api.get("/openapi.json").json()
    operations = [
        operation
        for path in described["paths"].values()
        for operation in path.values()
        if "operationId" in operation
    ]
    assert len(operations) == len({operation["operationId"] for operation in operations}) >= 35
    assert all(operation["description"] for operation in operations)
