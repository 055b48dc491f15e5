"""The agent's OpenAPI document: valid, complete, and true of the bodies that the agent's codecs accept."""

import json
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving_agent import datatypes, openapi, openapi_schemas, predict_codec, rest_codec, tensors, validation
from serving_agent.contract.signature import DATATYPES, Signature, TensorSpec
from serving_agent.errors import HTTP_STATUS, InvalidRequestError
from tests.fakes.agents import make_manifest

TEXT = Signature(
    (TensorSpec("input_ids", "INT64", (-1, -1)), TensorSpec("attention_mask", "INT64", (-1, -1))),
    (TensorSpec("logits", "FP32", (-1, 2)), TensorSpec("label", "BYTES", (-1,))),
)
SPECS = st.builds(
    TensorSpec,
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from(DATATYPES),
    st.lists(st.sampled_from([-1, 1, 2, 3]), max_size=3).map(tuple),
)
TENSORS = st.lists(SPECS, min_size=1, max_size=3, unique_by=lambda spec: spec.name).map(tuple)
SIGNATURES = st.builds(Signature, TENSORS, TENSORS)


def document(signature):
    return openapi.describe(make_manifest(Path("/nowhere"), signature), signature)


def checker(document, schema):
    """A validator of component *schema*, as draft 2020-12, which OpenAPI 3.1 uses."""
    return jsonschema.Draft202012Validator(
        {"$ref": f"#/components/schemas/{schema}", "components": document["components"]}
    )


def references(value):
    if isinstance(value, dict):
        yield from (item for key, item in value.items() if key == "$ref")
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


@given(SIGNATURES)
def test_every_schema_is_valid_and_every_reference_leads_somewhere(signature):
    whole = document(signature)
    json.dumps(whole, allow_nan=False)
    for schema in whole["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    for reference in references(whole):
        where = whole
        for step in reference.removeprefix("#/").split("/"):
            where = where[step]


def test_inference_documents_every_status_the_agent_has():
    responses = document(TEXT)["paths"]["/v2/models/{model}/infer"]["post"]["responses"]
    known = {str(status) for status in HTTP_STATUS.values() if status != 405}  # its method is always right
    assert set(responses) == known | {"200"}
    whole = document(TEXT)["components"]["responses"]
    assert {status for status in whole if "headers" in whole[status]} == {"429", "503"}


@given(SIGNATURES)
def test_the_example_fits_the_schema_and_the_codec(signature):
    example = openapi_schemas.infer_example(signature)
    checker(document(signature), "InferRequest").validate(example)
    decoded = rest_codec.decode(json.dumps(example).encode(), None, "digits", "")
    arrays = validation.decode_inputs(signature, decoded.request.inputs, "reject", 2**20)
    assert list(arrays) == [spec.name for spec in signature.inputs]


def test_a_long_request_has_no_example():
    image = Signature((TensorSpec("x", "FP32", (-1, 3, 224, 224)),), (TensorSpec("y", "FP32", (-1, 2)),))
    assert openapi_schemas.infer_example(image) is None
    infer = document(image)["paths"]["/v2/models/{model}/infer"]["post"]
    assert "example" not in infer["requestBody"]["content"]["application/json"]


def ids(rows, columns, **changes):
    tensor = {"shape": [rows, columns], "datatype": "INT64", "data": [[1] * columns] * rows}
    return [{"name": name, **tensor, **changes} for name in ("input_ids", "attention_mask")]


@pytest.mark.parametrize(
    ("request_", "fits"),
    [
        ({"inputs": ids(2, 3)}, True),
        ({"inputs": ids(2, 3)[::-1], "id": "1", "outputs": [{"name": "label"}]}, True),
        ({"inputs": ids(1, 2, data=[1, 2])}, True),
        ({"inputs": ids(1, 2)[:1]}, False),
        ({"inputs": [ids(1, 2)[0]] * 2}, False),
        ({"inputs": ids(1, 2, datatype="INT32")}, False),
        ({"inputs": ids(1, 2, shape=[1])}, False),
        ({"inputs": ids(1, 2, shape=[0, 2])}, False),
        ({"inputs": ids(1, 2, data=[1.5, 2])}, False),
        ({"inputs": ids(1, 2, data=[2**63, 2])}, False),
        ({"inputs": ids(1, 2), "outputs": [{"name": "other"}]}, False),
        ({"inputs": []}, False),
        ({}, False),
    ],
)
def test_the_schema_tells_right_requests_from_wrong_ones(request_, fits):
    assert checker(document(TEXT), "InferRequest").is_valid(request_) is fits


@pytest.mark.parametrize("datatype", [name for name in DATATYPES if name not in ("BOOL", "BYTES", "FP64")])
def test_the_bounds_of_an_element_are_the_datatypes(datatype):
    schema = openapi_schemas.element(datatype)
    least, most = schema["minimum"], schema["maximum"]
    assert tensors.from_values([least, most], datatype, "x").astype(object).tolist() == [least, most]
    beyond = most * 1.01 if datatype in datatypes.FLOATS else most + 1
    with pytest.raises(InvalidRequestError, match="does not fit"):
        tensors.from_values([beyond], datatype, "x")


ONE = Signature((TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "FP32", (-1, 2)),))


@pytest.mark.parametrize("value", [[[1, 2]], [1, 2], {"x": [[1, 2], [3, 4]]}, {"x": [1, 2]}])
def test_every_form_of_predict_is_described(value):
    checker(document(ONE), "PredictRequest").validate({"input": value})
    decoded = predict_codec.decode(json.dumps({"input": value}).encode(), "digits", ONE)
    assert validation.decode_inputs(ONE, decoded.inputs, "reject", 2**20)["x"].shape[1:] == (2,)


def test_both_forms_of_predictions_are_described():
    checker(document(ONE), "PredictResponse").validate({"predictions": [[1.0, 2.0]]})
    several = {"predictions": {"logits": [[1.0, 2.0]], "label": ["cat"]}}
    checker(document(TEXT), "PredictResponse").validate(several)
    assert not checker(document(TEXT), "PredictResponse").is_valid({"predictions": [[1.0, 2.0]]})
