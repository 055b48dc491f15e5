"""schemathesis against a really started agent: the protocol's OpenAPI document and the agent's own."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import torch
from torch import nn

from serving_agent import openapi_schemas
from serving_agent.contract.signature import Signature, TensorSpec
from tests.fakes import models, open_inference
from tests.fakes.agents import make_manifest, start_agent

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance"
)
EXAMPLES = 25


class Mixed(nn.Module):
    """Takes a matrix of fixed size and whole numbers of free length; returns both changed."""

    def forward(self, x: torch.Tensor, n: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x * 0.5, torch.bitwise_not(n)


SIGNATURE = Signature(
    (TensorSpec("x", "FP32", (2, 2)), TensorSpec("n", "INT64", (-1,))),
    (TensorSpec("half", "FP32", (2, 2)), TensorSpec("inverse", "INT64", (-1,))),
)


@pytest.fixture(scope="module")
def agent(tmp_path_factory, nursery):
    folder = tmp_path_factory.mktemp("agent")
    manifest = make_manifest(models.save_torchscript(Mixed(), folder / "model"), SIGNATURE)
    with start_agent(manifest, folder, nursery=nursery) as running:
        yield running


def run(agent, document, folder, config=""):
    """Run schemathesis on *document*; return the statuses it met, counted by path and status."""
    (folder / "api.json").write_text(json.dumps(document))
    (folder / "schemathesis.toml").write_text(config)
    program = Path(sys.executable).with_name("schemathesis")
    done = subprocess.run(
        [
            program, "--config-file", "schemathesis.toml", "run", "api.json",
            "--url", f"http://{agent.manifest.rest_address}",
            "--checks", CHECKS,
            "--max-examples", str(EXAMPLES),
            "--generation-deterministic",
            "--phases", "examples,coverage,fuzzing",
            "--suppress-health-check", "all",
            "--warnings", "off",
            "--no-color",
            "--report", "har",
            "--report-har-path", "calls.har",
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    entries = json.loads((folder / "calls.har").read_text())["log"]["entries"]
    return Counter((urlsplit(entry["request"]["url"]).path, entry["response"]["status"]) for entry in entries)


def test_the_protocols_own_document(agent, tmp_path):
    config = '[parameters]\n"path.MODEL_NAME" = "digits"\n"path.MODEL_VERSION" = "2"\n'
    document = open_inference.document(openapi_schemas.infer_example(SIGNATURE))
    met = run(agent, document, tmp_path, config)
    route = "/v2/models/digits/versions/2/infer"
    assert met[(route, 200)] >= 1, met
    assert met[(route, 400)] >= EXAMPLES, met
    assert met[("/v2/models/digits/versions/2", 200)] >= 1


def test_the_agents_own_document(agent, tmp_path):
    with agent.http as http:
        document = http.get("/openapi.json").json()
    met = run(agent, document, tmp_path)
    for route in ("/v2/models/digits/infer", "/v2/models/digits/versions/2/infer", "/predict"):
        assert met[(route, 200)] >= 2, met
        assert met[(route, 400)] >= EXAMPLES, met
    for path in document["paths"]:
        concrete = path.replace("{model}", "digits").replace("{version}", "2")
        assert any(where == concrete for where, _ in met), concrete
