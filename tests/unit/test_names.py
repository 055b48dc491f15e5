"""Names of models, endpoints, aliases, versions and tags."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain.details import check_details, check_labels, check_tag_key, check_tag_value
from control_plane.domain.names import VersionRef, check_alias, check_label, parse_version_ref
from control_plane.errors import InvalidInputError

BAD_LABELS = [
    "", " ", ".", "..", "../x", "..\\x", "a/b", "a\\b", "/etc", "%2e%2e", "..%2f",
    "%252e", "a%2fb", "..;", "a;b",
    "a\0", "\0", "a\n", "\ta", "a b", "a#b", "a?b", "a&b", "a=b", "file:///x", "A",
    "Digits", "ä", "ａ", "日本", "a_b",
    "a.b", "-a", "a-", "-", "a@1", "a:b", "a*b", "'a'", '"a"', "<a>", "a|b", "a$b", "~a",
    "a" * 64, "${a}", "a\u200b",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_LABELS, ids=ascii)
@pytest.mark.parametrize("kind", ["model", "endpoint", "alias"])
def test_bad_labels_are_refused_for_every_kind(kind: str, name: str) -> None:
    with pytest.raises(InvalidInputError, match=kind):
        check_label(kind, name)


BAD_KEYS = [each for each in BAD_LABELS if each not in ("A", "Digits", "a_b", "a.b", "a.b.c")]


@pytest.mark.parametrize("key", BAD_KEYS, ids=ascii)
def test_bad_tag_keys_are_refused(key: str) -> None:
    with pytest.raises(InvalidInputError):
        check_tag_key(key)


@pytest.mark.parametrize("key", ["a", "Stage", "team.owner", "x_y-z", "a" * 63])
def test_good_tag_keys(key: str) -> None:
    assert check_tag_key(key) == key


@pytest.mark.parametrize("name", ["a", "0", "digits", "a-b--c", "a" * 63, "1a"])
def test_good_labels(name: str) -> None:
    assert check_label("model", name) == name


@pytest.mark.parametrize("alias", ["1", "42", "007", "٣"])
def test_an_alias_never_reads_as_a_number(alias: str) -> None:
    with pytest.raises(InvalidInputError):
        check_alias(alias)


@pytest.mark.parametrize(
    "text", ["digits", "@1", "digits@", "digits@-1", "digits@1.5", "digits@" + "9" * 5000, "a@b@c"]
)
def test_bad_version_names_are_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_version_ref(text)


@given(st.text(max_size=80))
def test_version_names_never_break_the_parser(text: str) -> None:
    try:
        ref = parse_version_ref(text)
    except InvalidInputError:
        return
    assert parse_version_ref(str(ref)) == ref


def test_version_names() -> None:
    assert parse_version_ref("digits@2") == VersionRef("digits", 2)
    assert parse_version_ref("digits@champion") == VersionRef("digits", "champion")


@pytest.mark.parametrize(
    "details",
    [{"x": float("nan")}, {"x": float("inf")}, {"x": object()}, {"x": "a\0b"}, {"x": "y" * 70_000}],
    ids=["nan", "inf", "object", "nul", "long"],
)
def test_details_must_be_plain_and_small(details: dict[str, object]) -> None:
    with pytest.raises(InvalidInputError):
        check_details(details)


def test_labels_and_values_are_single_lines() -> None:
    assert check_labels(["zero", "eins", "二"]) == ["zero", "eins", "二"]
    assert check_tag_value("") == ""
    with pytest.raises(InvalidInputError):
        check_labels(["a\nb"])
    with pytest.raises(InvalidInputError):
        check_tag_value("x" * 300)
