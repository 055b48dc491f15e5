"""What a person types about the network of bare weights."""

from __future__ import annotations

import pytest

from control_plane.errors import InvalidInputError
from control_plane.ui.viewmodels import networks


def test_a_class_may_have_arguments() -> None:
    plain = networks.network("class", "nets:Digits", "", "ignored")
    assert plain == {"class": "nets:Digits", "arguments": {}}
    given = networks.network("class", "nets:Digits", '{"hidden": 128}', "")
    assert given == {"class": "nets:Digits", "arguments": {"hidden": 128}}


def test_a_configuration_is_an_object() -> None:
    given = networks.network("config", "", "", '{"architectures": ["BertModel"]}')
    assert given == {"config": {"architectures": ["BertModel"]}}


@pytest.mark.parametrize("text", ["[1]", "1", "{", "{'hidden': 1}", "[" * 100_000])
def test_what_is_no_object_is_told_so(text: str) -> None:
    with pytest.raises(InvalidInputError, match="What is given as the arguments is n"):
        networks.network("class", "nets:Digits", text, "")
