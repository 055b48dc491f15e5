"""The main line through stock clients and the command line: a checkpoint goes in, predictions come out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http

from tests.fakes.stack import Stack

pytestmark = pytest.mark.timeout(300)


def test_example_is_two_measured_models(stack: Stack, digits: list[dict[str, Any]]) -> None:
    first = stack.api.get("/models/digits/versions/1").json()
    second = stack.api.get("/models/digits/versions/2").json()
    assert (first["format"], second["format"]) == ("torchscript", "exported_program")
    assert 0.5 < first["details"]["test_accuracy"] < second["details"]["test_accuracy"] <= 1
    assert len(digits) == 100
    assert second["example_count"] == 100


def test_stock_clients_get_the_models_own_answers(stack: Stack, digits: list[dict[str, Any]]) -> None:
    stack.deploy("clients", "digits@2", handler="tensor")
    images = np.asarray([example["inputs"]["image"] for example in digits], dtype=np.float32)
    expected = _own_answers(stack, images)

    over_http = _ask_over_http(stack, "clients", images)
    over_grpc = _ask_over_grpc(stack, "clients", images)
    plain = httpx.post(
        f"{stack.settings.gateway_url}/e/clients/predict", json={"input": images.tolist()}
    ).json()

    np.testing.assert_allclose(over_http, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(over_grpc, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(plain["predictions"], expected, rtol=1e-5, atol=1e-5)
    truth = [int(example["label"]) for example in digits]
    assert np.mean(expected.argmax(axis=1) == truth) > 0.9


def _own_answers(stack: Stack, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    digest = stack.api.get("/models/digits/versions/2").json()["digest"].removeprefix("sha256:")
    (program,) = stack.settings.artifacts_dir.rglob(f"{digest}*/**/*.pt2")
    module = torch.export.load(str(program)).module()
    answers: np.ndarray[Any, Any] = module(torch.from_numpy(images)).detach().numpy()
    return answers


def _ask_over_http(stack: Stack, endpoint: str, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    with triton_http.InferenceServerClient(f"127.0.0.1:{stack.settings.gateway_port}") as client:
        assert client.is_model_ready(endpoint)
        name = client.get_model_metadata(endpoint)["inputs"][0]["name"]
        given = triton_http.InferInput(name, images.shape, "FP32")
        given.set_data_from_numpy(images)
        answers: np.ndarray[Any, Any] = client.infer(endpoint, [given]).as_numpy("logits")
        return answers


def _ask_over_grpc(stack: Stack, endpoint: str, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    with triton_grpc.InferenceServerClient(f"127.0.0.1:{stack.settings.gateway_port}") as client:
        assert client.is_model_ready(endpoint)
        given = triton_grpc.InferInput("image", images.shape, "FP32")
        given.set_data_from_numpy(images)
        answers: np.ndarray[Any, Any] = client.infer(endpoint, [given]).as_numpy("logits")
        return answers


def test_command_line_from_push_to_prediction(stack: Stack, tmp_path: Path) -> None:
    path = tmp_path / "double.pt2"
    rows = torch.export.Dim("rows", min=1, max=1024)
    program = torch.export.export(Double(), (torch.ones(3, 4),), dynamic_shapes={"x": {0: rows}})
    torch.export.save(program, path)

    pushed = _cli(stack, "push", str(path), "--model", "double", "--accept-program", "--meta", "purpose=test")
    assert pushed["ref"] == "double@1"
    again = _cli(stack, "push", str(path), "--model", "double", "--accept-program")
    assert again["ref"] == "double@2"
    digests = {stack.api.get(f"/models/double/versions/{n}").json()["digest"] for n in (1, 2)}
    assert len(digests) == 1, "the same bytes are stored once"

    _cli(stack, "deploy", "double", "double@1")
    answer = _cli(stack, "predict", "double", "--input", "-", stdin=json.dumps([[1, 2, 3, 4]]))
    assert answer["predictions"] == [[2, 4, 6, 8]]
    status = _cli(stack, "status")
    assert status["controller"] == "leading"
    _cli(stack, "delete", "double")


class Double(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


def _cli(stack: Stack, *arguments: str, stdin: str | None = None) -> dict[str, Any]:
    done = stack.cli(*arguments, "--json", stdin=stdin)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_scale_up_and_down_and_stop_and_start(stack: Stack, digits: list[dict[str, Any]]) -> None:
    stack.deploy("scaled", "digits@1")
    for replicas in (3, 1):
        stack.api.post("/endpoints/scaled/scale", json={"replicas": replicas}).raise_for_status()
        stack.wait_for("scaled", lambda view: view["ready"] == replicas and view["health"] == "ready")  # noqa: B023
    stack.api.post("/endpoints/scaled/stop", json={}).raise_for_status()
    stack.wait_for("scaled", lambda view: view["health"] == "stopped")
    refused = httpx.post(f"{stack.settings.gateway_url}/e/scaled/predict", json={"input": []})
    assert (refused.status_code, list(refused.json())) == (503, ["error"])
    assert int(refused.headers["retry-after"]) > 0
    stack.api.post("/endpoints/scaled/start", json={}).raise_for_status()
    stack.wait_for("scaled", lambda view: view["health"] == "ready")
    stack.api.delete("/endpoints/scaled").raise_for_status()


def test_second_up_says_what_runs_already(stack: Stack) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "control_plane", "up"],
        env=stack.environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert second.returncode == 0, second.stderr
    assert stack.settings.web_url in second.stdout
    assert "already" in second.stdout
