"""The playground: forms, requests and answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain.views import Example, Prediction
from control_plane.errors import InvalidInputError
from control_plane.ui.viewmodels import playground as p
from serving_agent.contract.signature import DATATYPES, Signature, TensorSpec

DIGITS = Signature((TensorSpec("image", "FP32", (-1, 1, 8, 8)),), (TensorSpec("logits", "FP32", (-1, 10)),))
TWO = Signature((TensorSpec("text", "BYTES", (-1,)), TensorSpec("top", "INT64", (-1, 1))), ())

specs = st.builds(
    TensorSpec,
    st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True),
    st.sampled_from(DATATYPES),
    st.lists(st.sampled_from([-1, 1, 2, 3]), min_size=1, max_size=3).map(lambda rest: (-1, *rest)),
)


def test_fields_follow_the_signature() -> None:
    assert [(field.name, field.kind) for field in p.fields(TWO)] == [("text", "text"), ("top", "integer")]
    assert p.fields(DIGITS)[0].kind == "json"
    assert p.fields(DIGITS)[0].label == "image · FP32 [batch, 1, 8, 8]"
    kinds = {
        t: p.fields(Signature((TensorSpec("x", t, (-1,)),), ()))[0].kind for t in ("BOOL", "FP64", "UINT8")
    }
    assert kinds == {"BOOL": "flag", "FP64": "number", "UINT8": "integer"}


@given(specs)
def test_zeros_have_the_shape_of_one_row(spec: TensorSpec) -> None:
    value = p.zeros(spec)
    for size in spec.shape[1:]:
        assert len(value) == (1 if size == -1 else size)
        value = value[0]
    assert not isinstance(value, list)


def test_requests_name_inputs_only_when_there_are_several() -> None:
    assert p.request_body(DIGITS, {"image": [[[0.0]]]}) == {"input": [[[[0.0]]]]}
    body = p.request_body(TWO, {"text": "hi", "top": p.wrap(TWO.inputs[1], 3)})
    assert body == {"input": {"text": ["hi"], "top": [[3]]}}


def test_a_row_to_try_comes_from_the_examples() -> None:
    examples = [Example({"image": "a"}), Example({"image": "b"})]
    assert p.example_row(DIGITS, examples, 1) == {"image": "b"}
    assert p.example_row(DIGITS, examples, 99) == {"image": "b"}
    assert p.example_row(TWO, ()) == {"text": "hello", "top": [0]}


def test_thumbnails_are_pictures_only_for_pictures() -> None:
    shown = p.thumbnails(DIGITS, [Example({"image": [[[0.0] * 8] * 8]}, "7")], 5)
    assert shown[0].title == "Example 1, labelled 7"
    assert shown[0].picture is not None
    assert shown[0].picture.startswith("data:image/png;base64,")
    assert p.thumbnails(TWO, [Example({"text": "x"})], 5)[0].picture is None


def test_broken_json_names_the_field() -> None:
    with pytest.raises(InvalidInputError, match="image is not JSON"):
        p.parse_field(p.fields(DIGITS)[0], "[1,")


def _answer(predictions: object, status: int = 200) -> Prediction:
    return Prediction(status, {"predictions": predictions}, 1.2, "digits@1", "sha256:00")


@pytest.mark.parametrize(
    "predictions",
    [
        {"probabilities": [[0.1, 0.7, 0.2]], "label": ["b"]},
        [{"probabilities": [0.1, 0.7, 0.2], "label": "b"}],
    ],
)
def test_a_distribution_becomes_bars_best_first(predictions: object) -> None:
    shown = p.result(_answer(predictions), ["a", "b", "c"])
    assert [bar.label for bar in shown.bars] == ["b", "c", "a"]
    assert [bar.best for bar in shown.bars] == [True, False, False]
    assert (shown.sentence, shown.predicted) == ("b · 70.0 %", "b")


def test_a_vector_becomes_bars_in_its_own_order() -> None:
    shown = p.result(_answer([[0.5, -1.0, 2.0]]), ["a", "b", "c"])
    assert [(bar.label, bar.share, bar.text, bar.negative) for bar in shown.bars] == [
        ("0", 0.25, "0.5", False),
        ("1", 0.5, "-1", True),
        ("2", 1.0, "2", False),
    ]
    assert (shown.sentence, shown.predicted) == ("highest at 2 · 2", None)
    assert p.result(_answer({"output": [[0.0, 0.0]]}), []).bars[0].best


def test_other_answers_become_a_table_or_json() -> None:
    assert p.result(_answer([[1.5] * 99]), []).table == {"output": [1.5] * 99}
    assert p.result(_answer({"a": [[1, 2]], "b": [["x", "y"]]}), []).table == {"a": [1, 2], "b": ["x", "y"]}
    assert p.result(_answer([[[1.0]], [[2.0]]]), []).table is None
    assert p.result(_answer(None), []).table is None


@pytest.mark.parametrize("body", [{"error": "no"}, {"error": {"message": "no", "code": "x"}}])
def test_a_refusal_is_a_sentence(body: dict[str, object]) -> None:
    shown = p.result(Prediction(400, body, 1.0, None, None), [])
    assert (shown.ok, shown.sentence) == (False, "no")
    assert "502" in p.result(Prediction(502, {}, 1.0, None, None), []).sentence


anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(anything)
def test_no_answer_breaks_the_page(predictions: object) -> None:
    assert p.result(_answer(predictions), ["a"]).ok
