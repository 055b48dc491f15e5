"""Client code: complete, parseable, and carrying the very tensor it was made from."""

import base64
import json
import shlex
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.ui.viewmodels import playground, snippets
from serving_agent.contract.signature import DATATYPES, Signature, TensorSpec

GATEWAY, WEB = "http://127.0.0.1:8080", "http://127.0.0.1:8501"
DIGITS = Signature((TensorSpec("image", "FP32", (-1, 1, 2, 2)),), ())
ROW = {"image": [[[0.0, 0.25], [0.5, 1.0]]]}


def made(signature: Signature, row: dict[str, Any]) -> dict[str, str]:
    return {each.title: each.code for each in snippets.snippets("digits", GATEWAY, WEB, signature, row)}


def test_curl_sends_the_row() -> None:
    words = shlex.split(made(DIGITS, ROW)["curl"].replace("\\\n", ""))
    assert words[2] == f"{GATEWAY}/e/digits/predict"
    assert json.loads(words[words.index("-d") + 1]) == {"input": [ROW["image"]]}


def test_grpcurl_names_endpoint_and_values() -> None:
    code = made(DIGITS, ROW)["grpcurl"]
    assert f"{WEB}/assets/open_inference.pb" in code
    words = shlex.split(code.replace("\\\n", "").replace("<(", "").replace(")", ""))
    message = json.loads(words[words.index("-d") + 1])
    assert words[words.index("-H") + 1] == "x-endpoint: digits"
    assert message["inputs"][0]["shape"] == [1, 1, 2, 2]
    assert message["inputs"][0]["contents"] == {"fp32_contents": [0.0, 0.25, 0.5, 1.0]}


def test_half_precision_goes_as_raw_bytes() -> None:
    signature = Signature((TensorSpec("x", "FP16", (-1, 2)), TensorSpec("s", "BYTES", (-1,))), ())
    code = made(signature, {"x": [1.0, 0.5], "s": "é"})["grpcurl"]
    words = shlex.split(code.replace("\\\n", "").replace("<(", "").replace(")", ""))
    message = json.loads(words[words.index("-d") + 1])
    assert all("contents" not in entry for entry in message["inputs"])
    halves, text = (base64.b64decode(part) for part in message["raw_input_contents"])
    assert struct.unpack("<2e", halves) == (1.0, 0.5)
    assert text == struct.pack("<I", 2) + "é".encode()


def test_shell_quoting_survives_any_text() -> None:
    signature = Signature((TensorSpec("text", "BYTES", (-1,)),), ())
    nasty = 'it\'s; $(rm -rf ~) `x` "q" \\ \n'
    words = shlex.split(made(signature, {"text": nasty})["curl"].replace(" \\\n", " "))
    assert json.loads(words[words.index("-d") + 1]) == {"input": [nasty]}


def test_large_inputs_are_made_by_the_snippet_itself() -> None:
    signature = Signature((TensorSpec("image", "FP32", (-1, 3, 224, 224)),), ())
    code = made(signature, {"image": playground.zeros(signature.inputs[0])})
    assert max(map(len, (code["curl"], code["httpx"], code["tritonclient HTTP"]))) < 1000
    assert "np.zeros([1, 3, 224, 224], dtype=np.float32)" in code["tritonclient gRPC"]
    body = eval(code["httpx"].split("json=")[1].split(",\n")[0])
    assert len(body["input"][0][2][223]) == 224


specs = st.builds(
    TensorSpec,
    st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True),
    st.sampled_from(DATATYPES),
    st.lists(st.sampled_from([-1, 1, 3]), max_size=2).map(lambda rest: (-1, *rest)),
)


@settings(max_examples=60)
@given(st.lists(specs, min_size=1, max_size=3, unique_by=lambda spec: spec.name))
def test_python_compiles_and_shell_parses_for_every_signature(inputs: list[TensorSpec]) -> None:
    signature = Signature(tuple(inputs), ())
    row = {spec.name: playground.zeros(spec) for spec in inputs}
    for snippet in snippets.snippets("e", GATEWAY, WEB, signature, row):
        if snippet.language == "python":
            compile(snippet.code, snippet.title, "exec")
        else:
            assert shlex.split(snippet.code.replace("\\\n", ""))


@pytest.mark.parametrize("datatype", DATATYPES)
def test_every_datatype_has_an_array_type(datatype: str) -> None:
    signature = Signature((TensorSpec("x", datatype, (-1, 1)),), ())
    assert "dtype=np." in made(signature, {"x": playground.zeros(signature.inputs[0])})["tritonclient HTTP"]
