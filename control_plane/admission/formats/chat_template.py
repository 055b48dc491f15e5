"""Chat templates (Jinja): what they may hold, decided by their words, without parsing or rendering them.

Libraries render them in a sandbox that forbids names with underscores in front. This asks for less: no such
names, no other templates, no huge numbers. jinja2 itself is not used: it imports pickle.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from control_plane.admission.base import ReceivedFile, Refusal
from control_plane.admission.reasons import ReasonCode

MAX_BYTES: Final = 512 * 1024
MAX_DIGITS: Final = 6
KEYS: Final = ("chat_template", "chat_templates", "template")
FORBIDDEN_TAGS: Final = frozenset({"import", "include", "extends", "from", "block", "call", "debug"})
OPENING: Final = re.compile(r"\{[{%#]")
TOKEN: Final = re.compile(
    r"(?P<text>'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")|(?P<open>[(\[{])|(?P<end>\}\}|%\})|(?P<close>[)\]}])"
    r"|(?P<quote>['\"])",
    re.DOTALL,
)
"""What matters for where a block ends: texts, brackets, the end itself, and a quote that opens no text."""
FORBIDDEN_IN_CODE: Final = (
    (re.compile(r"\.\s*_"), "a hidden attribute"),
    (re.compile(r"\|\s*(attr|xmlattr|pprint)\b"), "a filter that reaches attributes"),
    (
        re.compile(r"\.\s*(mro|format_map|func_globals|gi_frame|gi_code|cr_frame|ag_frame|tb_frame)\b"),
        "an attribute that reaches Python",
    ),
    (
        re.compile(r"\b(self|cycler|joiner|lipsum|config|request|environment)\s*\."),
        "the engine's own objects",
    ),
    (re.compile(r"\*\*"), "a power"),
    (re.compile(rf"(?<![\w.])\d{{{MAX_DIGITS + 1},}}"), "a huge number"),
)
FORBIDDEN_ANYWHERE: Final = (
    (re.compile(r"__"), "a name with two underscores"),
    (re.compile(r"\[\s*['\"]_|['\"]_+['\"]"), "a hidden attribute"),
    (re.compile(r"\\(x5f|u005f|U0000005f|N\{|137)", re.IGNORECASE), "an underscore by its number"),
)
"""Looked for in texts as well."""
KEEP_SIMPLE: Final = (
    "Keep to messages, loops and conditions, as templates of published models do; or remove the template."
)


def check_file(file: ReceivedFile) -> None:
    """Check a file that is a template. Raises Refusal."""
    if file.size_bytes > MAX_BYTES:
        raise _refused(file.path, f"it has {file.size_bytes} bytes, more than {MAX_BYTES}")
    try:
        text = file.head(MAX_BYTES).decode()
    except UnicodeDecodeError:
        raise _refused(file.path, "it is not text") from None
    check(text, file.path)


def check_json(value: Any, file: str) -> None:
    """Check every template in parsed JSON: under `chat_template`, alone or in a list of named ones."""
    for template in _templates(value):
        if len(template) > MAX_BYTES:
            raise _refused(file, f"it has {len(template)} characters, more than {MAX_BYTES}")
        check(template, file)


def check(template: str, file: str) -> None:
    """Check one template; *file* names the upload in refusals. Raises Refusal."""
    position = 0
    while opening := OPENING.search(template, position):
        begin = opening.end()
        if opening[0] == "{#":
            end = template.find("#}", begin)
            if end < 0:
                raise _refused(file, "a comment in it does not end")
        else:
            end = _block_end(template, begin, "}}" if opening[0] == "{{" else "%}", file)
            _check_block(template[begin:end], is_tag=opening[0] == "{%", file=file)
        position = end + 2


def _block_end(template: str, begin: int, closing: str, file: str) -> int:
    """Return where the block that begins at *begin* ends, as Jinja sees it: not in texts, not in brackets."""
    depth = 0
    position = begin
    while token := TOKEN.search(template, position):
        position = token.end()
        if token["quote"]:
            break
        if token["end"] == closing and depth == 0:
            return token.start()
        if token["end"] or token["close"]:
            depth -= 1
            position = token.start() + 1
            if token["end"] == "%}":  # the bracket is its second half
                position = token.end()
        elif token["open"]:
            depth += 1
    raise _refused(file, "a block or a text in it does not end")


def _check_block(content: str, *, is_tag: bool, file: str) -> None:
    tag = _tag(content) if is_tag else None
    if tag in FORBIDDEN_TAGS:
        raise _refused(file, f"it holds the tag {tag}")
    code = TOKEN.sub(lambda token: "''" if token["text"] else token[0], content)
    for pattern, what in FORBIDDEN_IN_CODE:
        if pattern.search(code):
            raise _refused(file, f"it holds {what}")
    for pattern, what in FORBIDDEN_ANYWHERE:
        if pattern.search(content):
            raise _refused(file, f"it holds {what}")


def _tag(content: str) -> str | None:
    word = re.match(r"[-+\s]*(\w+)", content)
    return word[1] if word else None


def _templates(root: Any) -> Iterator[str]:
    """Yield each text under one of `KEYS`, wherever it lies below."""
    waiting: list[tuple[Any, bool]] = [(root, False)]
    while waiting:
        value, wanted = waiting.pop()
        if isinstance(value, dict):
            waiting.extend((held, wanted or key in KEYS) for key, held in value.items())
        elif isinstance(value, list):
            waiting.extend((held, wanted) for held in value)
        elif wanted and isinstance(value, str):
            yield value


def _refused(file: str, why: str) -> Refusal:
    return Refusal(
        ReasonCode.UNSAFE_TEMPLATE, f"the chat template in {file} is not plain: {why}", KEEP_SIMPLE, file=file
    )
