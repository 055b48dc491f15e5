"""Chat templates: those of published models pass, those that reach beyond messages do not."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.admission.base import Refusal
from control_plane.admission.formats import chat_template
from control_plane.admission.reasons import ReasonCode

PLAIN = {
    "chatml": "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message.content "
    "+ '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "llama": "{{- bos_token }}{%- set ns = namespace(found=false) %}"
    "{%- for m in messages -%}{%- if not "
    "(m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{- raise_exception('Roles must alternate!') }}{%- endif %}"
    "{%- endfor %}{{ strftime_now('%d %b %Y') }}",
    "macro": "{%- macro render(x, y=None) %}"
    "{{ x | tojson(indent=2) }}{%- endmacro %}{{ render({'a': {'b': 1}}) }}",
    "loop": "{% for _ in range(3) %}{% set _x = 1 %}"
    "{{ messages[1:] | selectattr('role', 'equalto', 'user') | list }}"
    "{% endfor %}",
    "text with braces": "{{ '}}' ~ \"%}\" ~ '\\'' }} and { plain } text with __init__ and 12345678 in it",
    "comment": "{# from __future__ import anything #}{{ x }}",
    "generation": "{% generation %}"
    "{{ message.content.split('</think>')[-1].lstrip('\\n') }}{% endgeneration %}",
    "nothing": "",
}
HOSTILE = {
    "class": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "class by key": "{{ x['__class__'] }}",
    "after a text that ends a block": "{{ '}}' ~ x.__class__ }}",
    "after brackets": "{{ {'a': {}} ~ x.__class__ }}",
    "in a tag after a text": "{% if '%}' and x.__class__ %}{% endif %}",
    "hidden attribute": "{{ x._private }}",
    "hidden attribute over lines": "{{ x.\n _private }}",
    "by pieces": "{{ x['_' ~ '_class_' ~ '_'] }}",
    "by hex": "{{ x['\\x5f\\x5fclass\\x5f\\x5f'] }}",
    "by name": "{{ x['\\N{LOW LINE}'] }}",
    "attr filter": "{{ x|attr('y') }}",
    "import": "{% import 'x' as y %}",
    "include": "{%- include '/etc/passwd' %}",
    "extends": "{% extends 'x' %}",
    "from": "{%+ from 'x' import y %}",
    "engine": "{{ cycler.x }}",
    "frames": "{{ x.gi_frame }}",
    "power": "{{ 9**9**9 }}",
    "huge range": "{% for i in range(10000000) %}{% endfor %}",
    "open block": "{{ x",
    "open text": "{{ 'x }}",
    "open comment": "{# x",
    "block that ends as another": "{{ x %}",
}


@pytest.mark.parametrize("case", PLAIN)
def test_published_templates_pass(case: str) -> None:
    chat_template.check(PLAIN[case], "chat_template.jinja")


@pytest.mark.parametrize("case", HOSTILE)
def test_templates_that_reach_further_are_refused(case: str) -> None:
    with pytest.raises(Refusal) as refused:
        chat_template.check(HOSTILE[case], "chat_template.jinja")
    assert refused.value.refused.code == ReasonCode.UNSAFE_TEMPLATE


@pytest.mark.parametrize(
    "value",
    [
        {"chat_template": HOSTILE["class"]},
        {"chat_template": [{"name": "default", "template": HOSTILE["class"]}]},
        {"nested": {"chat_template": {"default": HOSTILE["class"]}}},
        {"chat_template": "x" * (chat_template.MAX_BYTES + 1)},
    ],
)
def test_templates_in_json_are_found(value: dict[str, Any]) -> None:
    with pytest.raises(Refusal):
        chat_template.check_json(value, "tokenizer_config.json")
    chat_template.check_json({"other": HOSTILE["class"], "chat_template": PLAIN["chatml"]}, "x.json")


@given(st.text(alphabet="{}%#'\"\\ _.a[]()9|-\n", max_size=200))
def test_any_text_gets_an_answer(text: str) -> None:
    with contextlib.suppress(Refusal):
        chat_template.check(text, "chat_template.jinja")


@pytest.mark.parametrize(
    "piece", ["{{", "{#", "'", "\\'", "{{ '\\'", "{% a %}", "(", "{{ {", "{{ x }}'", "\n"]
)
def test_no_template_takes_a_second(piece: str) -> None:
    begun = time.thread_time()
    with contextlib.suppress(Refusal):
        chat_template.check("{{ " + piece * (65_536 // len(piece)), "x")
    assert time.thread_time() - begun < 1
