"""The client code that the dashboard offers, run as pasted against a really served model."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

from control_plane.ui.viewmodels import snippets
from serving_agent.contract.signature import Signature, TensorSpec
from tests.fakes.stack import Stack

ENDPOINT = "snippets"
SIGNATURE = Signature((TensorSpec("image", "FP32", (-1, 1, 8, 8)),), ())
METHOD = "/inference.GRPCInferenceService/ModelInfer"


@pytest.fixture(scope="module")
def offered(stack: Stack, digits: list[dict[str, Any]]) -> dict[str, str]:
    """Every snippet of an endpoint that serves digits@1, filled with the first example."""
    stack.deploy(ENDPOINT, "digits@1")
    settings = stack.settings
    made = snippets.snippets(ENDPOINT, settings.gateway_url, settings.web_url, SIGNATURE, digits[0]["inputs"])
    return {each.title: each.code for each in made}


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_curl(offered: dict[str, str]) -> None:
    answer = json.loads(run(["bash", "-c", offered["curl"]]))
    assert "predictions" in answer


def test_curl_with_an_input_too_long_to_write_out(stack: Stack, offered: dict[str, str]) -> None:
    settings, batch = stack.settings, Signature((TensorSpec("image", "FP32", (9, 1, 8, 8)),), ())
    row = {"image": [[[[0.123456] * 8] * 8]] * 9}
    made = snippets.snippets(ENDPOINT, settings.gateway_url, settings.web_url, batch, row)
    assert "python3 -c" in made[0].code
    assert "predictions" in json.loads(run(["bash", "-c", made[0].code]))


@pytest.mark.parametrize("title", ["httpx", "tritonclient HTTP", "tritonclient gRPC"])
def test_python(title: str, offered: dict[str, str]) -> None:
    said = run([sys.executable, "-c", offered[title]])
    assert "probabilities" in said
    assert ("served by digits@1" in said) == (title == "httpx")


def test_grpcurl(offered: dict[str, str], stack: Stack) -> None:
    """With grpcurl where it is installed; otherwise the same message and metadata, sent the way it would."""
    if shutil.which("grpcurl"):
        assert "probabilities" in run(["bash", "-c", offered["grpcurl"]])
        return
    code = offered["grpcurl"]
    words = shlex.split(code.replace("\\\n", "").replace("<(", "").replace(")", ""))
    types = _types(httpx.get(words[words.index("-sS") + 1]).content)
    request = json_format.ParseDict(
        json.loads(words[words.index("-d") + 1]), types["inference.ModelInferRequest"]()
    )
    name, _, value = words[words.index("-H") + 1].partition(": ")
    address, method = words[-2:]
    assert f"/{method}" == METHOD
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(
            METHOD,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=types["inference.ModelInferResponse"].FromString,
        )
        answer = call(request, metadata=((name, value),), timeout=30)
    assert {output.name for output in answer.outputs} == {"probabilities", "label"}


def _types(descriptors: bytes) -> dict[str, Any]:
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(descriptors).file:
        pool.Add(file)
    names = ("inference.ModelInferRequest", "inference.ModelInferResponse")
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(name)) for name in names}
