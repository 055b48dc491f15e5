"""What is sent to webhooks, as the Standard Webhooks specification has it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain import webhook
from control_plane.errors import InvalidInputError


def test_the_signature_is_that_of_the_specifications_own_example() -> None:
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # published with the specification's libraries
    content = b'{"test": 2432232314}'
    signed = webhook.signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", content)
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_headers_name_the_message_the_second_and_the_signature() -> None:
    secret = webhook.secret_of(b"k" * 24)
    headers = webhook.headers(secret, "id", 1700000000.9, b"{}")
    assert (headers["webhook-id"], headers["webhook-timestamp"]) == ("id", "1700000000")
    assert headers["webhook-signature"] == webhook.signature(secret, "id", "1700000000", b"{}")
    with pytest.raises(InvalidInputError):
        webhook.signature("whsec_!", "id", "1", b"")


def test_the_body_has_type_time_and_data() -> None:
    sent = json.loads(webhook.body({"type": "rollout.held", "at": 0.25, "endpoint": "digits", "step": 1}))
    assert sent == {
        "type": "rollout.held",
        "timestamp": "1970-01-01T00:00:00.250Z",
        "data": {"endpoint": "digits", "step": 1},
    }


@pytest.mark.parametrize("url", ["http://127.0.0.1:80/x", "https://example.org/hook?a=b", "http://[::1]/"])
def test_http_addresses_are_taken(url: str) -> None:
    assert webhook.check_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "", "ftp://example.org", "file:///etc/passwd", "http://", "https://user@example.org/", "http://a b/",
        "http://[broken", "http://a:99999/", "http://a/\n", "http://" + "a" * 3000, "javascript:alert(1)",
    ],
)  # fmt: skip
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(InvalidInputError):
        webhook.check_url(url)


@given(st.floats(0, 1e9), st.integers(1, 10_000))
def test_pauses_grow_and_end_after_a_day(created: float, attempts: int) -> None:
    first, later = (webhook.next_attempt(created, each, created) for each in (attempts, attempts + 1))
    assert first is not None
    assert later is not None
    assert created < first <= later <= created + webhook.GIVE_UP_S
    assert webhook.next_attempt(created, attempts, created + webhook.GIVE_UP_S) is None


def test_a_day_of_trying_is_a_score_of_attempts_at_most() -> None:
    now, attempts = 0.0, 1
    while (after := webhook.next_attempt(0.0, attempts, now)) is not None:
        now, attempts = after, attempts + 1
    assert 8 <= attempts <= 20
