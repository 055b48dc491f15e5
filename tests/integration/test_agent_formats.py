"""Agents that serve graphs of other engines and native code: started, asked over REST, refused unsigned."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import nn

from control_plane.provenance import keys
from control_plane.provenance.statement import hash_of, sealed, statement
from serving_agent.contract.manifest import Manifest
from serving_agent.contract.provenance import Envelope, Predicate, Provenance
from serving_agent.formats import catalog
from tests.fakes import models, native_models
from tests.fakes.agents import make_manifest, start_agent

NATIVE = tuple(each.name for each in catalog.formats() if each.is_native)
pytestmark = pytest.mark.timeout(400)
"""Whoever comes first makes the native code, which takes a C++ compiler half a minute on an idle machine."""
compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="native code needs a C++ compiler to be made"
)


def signed(manifest: Manifest, home: Path) -> Manifest:
    """*manifest* with the statement of a key in *home* about the files that are there now."""
    folder = manifest.artifact_dir
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    predicate = Predicate(
        version=manifest.version_ref, artifact=manifest.digest, format=manifest.format, evidence=None,
        parent=None, gate=None, uploader="ana", lineage_sha256=hash_of({}), created_at=1.0,
    )  # fmt: skip
    envelope = sealed(statement(files, predicate), keys.open_or_create(home))
    provenance = Provenance(
        envelope=msgspec.convert(envelope, Envelope),
        trusted_keys=tuple(base64.b64encode(key).decode() for key in keys.trusted(home)),
    )
    return msgspec.structs.replace(manifest, provenance=provenance)


def predicted(agent: Any, images: torch.Tensor) -> torch.Tensor:
    with agent.http as http:
        reply = http.post("/predict", json={"input": images.tolist()})
        assert reply.status_code == 200, reply.text
        return torch.tensor(reply.json()["predictions"])


def check(manifest: Manifest, network: nn.Module, folder: Path, platform: str) -> None:
    """The agent answers batches as *network* does, and says what it serves."""
    data = torch.from_numpy(models.digits_data()[0])
    with start_agent(manifest, folder, wait=False) as agent:
        agent.wait_phase("ready", timeout_s=180)
        for images in (data[1500:1501], data[1510:1515]):
            torch.testing.assert_close(predicted(agent, images), network(images), atol=1e-4, rtol=1e-4)
        with agent.http as http:
            assert http.get("/v2/models/digits").json()["platform"] == platform


@pytest.fixture(scope="module")
def onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits classifier as ONNX."""
    folder = tmp_path_factory.mktemp("onnx")
    return models.save_onnx(models.digits_model(), folder, (torch.zeros(2, 1, 8, 8),), models.DIGITS)


def test_onnx_is_served_with_the_threads_of_the_manifest(onnx: Path, tmp_path: Path) -> None:
    manifest = make_manifest(onnx, models.DIGITS, format="onnx", threads=2)
    check(manifest, models.digits_model(), tmp_path, "onnxruntime_onnx")


def test_openvino_is_served(onnx: Path, tmp_path: Path) -> None:
    folder = models.save_openvino(onnx, tmp_path / "model")
    manifest = make_manifest(folder, models.DIGITS, format="openvino")
    check(manifest, models.digits_model(), tmp_path, "openvino")


@compiler
@pytest.mark.parametrize(
    ("format_", "platform"),
    [("aot_inductor", "pytorch_aot_inductor"), ("compiled", "pytorch_compiled")],
    ids=NATIVE,
)
def test_native_code_is_served_where_it_is_signed(
    format_: str, platform: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = native_models.made(tmp_path_factory) / format_
    manifest = signed(make_manifest(folder, models.DIGITS, format=format_), tmp_path / "keys")
    check(manifest, models.smooth_digits(), tmp_path, platform)


@pytest.mark.parametrize("format_", NATIVE)
def test_native_code_that_nobody_signed_is_not_opened(format_: str, tmp_path: Path) -> None:
    (tmp_path / "model.pt2").write_bytes(b"anything: it is not read")
    manifest = make_manifest(tmp_path, models.DIGITS, format=format_)
    with start_agent(manifest, tmp_path / "agent", wait=False) as agent:
        assert agent.process.wait(60) == 3
        reason = json.loads(agent.failure_path.read_bytes())["reason"]
    title = catalog.get(format_).title
    assert reason.startswith(f"{title} artefacts hold native code and are opened only with a signed manifest")
