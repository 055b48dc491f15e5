"""A request's own parameters, and how long its client waits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving_agent import client_timeout, parameters
from serving_agent.errors import InvalidRequestError

VALUES = st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)


@given(st.dictionaries(st.text(max_size=8), VALUES, max_size=5))
def test_the_models_parameters_are_kept_sorted_and_the_protocols_left_out(given_ones):
    own = {name: value for name, value in given_ones.items() if not name.startswith(("sequence_", "triton_"))}
    protocols = dict.fromkeys([*parameters.PROTOCOL_NAMES, "sequence_id", "triton_final_response"], 1)
    own = {name: value for name, value in own.items() if name not in protocols}
    kept = parameters.own({**own, **protocols})
    assert kept == tuple(sorted(own.items()))
    assert kept == parameters.own({**protocols, **dict(reversed(own.items()))})
    hash(kept)


@pytest.mark.parametrize("value", [[], {}, [1], None])
def test_a_parameter_is_a_scalar(value):
    with pytest.raises(InvalidRequestError, match="'beam' must be a boolean, a number or a string"):
        parameters.own({"beam": value})


@given(st.integers(1, 2**64))
def test_a_timeout_is_microseconds(microseconds):
    assert parameters.timeout_s({"timeout": microseconds}) == pytest.approx(microseconds / 1e6)


@pytest.mark.parametrize("given_ones", [{}, {"timeout": 0}, {"beam": 1}])
def test_no_timeout(given_ones):
    assert parameters.timeout_s(given_ones) is None


@pytest.mark.parametrize("value", [-1, True, False, 0.5, 1.0, "1", "", None, [], {}, float("nan")])
def test_what_is_no_number_of_microseconds(value):
    with pytest.raises(InvalidRequestError, match="'timeout' must be a whole number of microseconds"):
        parameters.timeout_s({"timeout": value})


OWN, GATEWAY = b"x-signalbox-timeout-ms", b"x-envoy-expected-rq-timeout-ms"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({OWN: b"1500"}, 1.5),
        ({OWN: b"0.5"}, 0.0005),
        ({GATEWAY: b"2000"}, 2.0),
        ({OWN: b"1500", GATEWAY: b"2000"}, 1.5),
        ({OWN: b"2500", GATEWAY: b"2000"}, 2.0),
        ({GATEWAY: b"soon"}, None),
        ({GATEWAY: b"-1"}, None),
        ({OWN: b"", GATEWAY: b""}, None),
        ({GATEWAY: b"9" * 5000}, float("inf")),
    ],
)
def test_the_shorter_of_both_limits_counts(headers, seconds):
    assert client_timeout.timeout_s(headers) == seconds


@pytest.mark.parametrize("text", [b"0", b"-1", b"nan", b"inf", b"x", b"9" * 5000, b"\xff", b" "])
def test_a_clients_own_limit_must_be_a_positive_number(text):
    with pytest.raises(InvalidRequestError, match="x-signalbox-timeout-ms must be a positive number"):
        client_timeout.timeout_s({OWN: text})
