"""Who may talk to the dashboard: names of this machine, and pages of the dashboard itself."""

import pytest
from starlette.datastructures import Headers

from control_plane.ui import gate, theme

OWN = {"host": "127.0.0.1:8501"}


def refused(method: str = "GET", kind: str = "http", **headers: str) -> bool:
    sent = Headers({name.replace("_", "-"): value for name, value in {**OWN, **headers}.items()})
    return gate.refusal(kind, method, sent, gate.LOOPBACK_HOSTS) is not None


@pytest.mark.parametrize("host", ["127.0.0.1:8501", "localhost", "LocalHost:1", "[::1]:8501"])
def test_loopback_names_pass(host: str) -> None:
    assert not refused(host=host)


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "127.0.0.1.evil.example", "localhost.evil:8501", "127.0.0.2", "[::2]:1", "[::1"],
)
def test_other_names_do_not(host: str) -> None:
    assert refused(host=host)


def test_programs_without_origin_pass() -> None:
    assert not refused("POST")
    assert not refused(kind="websocket")


def test_own_pages_pass() -> None:
    assert not refused("PUT", origin="http://127.0.0.1:8501", sec_fetch_site="same-origin")
    assert not refused(kind="websocket", origin="http://127.0.0.1:8501")


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "null"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
    ],
)
@pytest.mark.parametrize(("kind", "method"), [("http", "POST"), ("http", "DELETE"), ("websocket", "GET")])
def test_other_pages_do_not(headers: dict[str, str], kind: str, method: str) -> None:
    assert refused(method, kind, **headers)


def test_both_themes_have_exactly_ten_chart_colours() -> None:
    options = theme.options()
    for name in ("light", "dark"):
        colours = options[f"theme.{name}.chartCategoricalColors"]
        assert len(set(colours)) == len(colours) == 10


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    """WCAG 2.2 contrast ratio."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("name", ["light", "dark"])
def test_colours_can_be_told_from_the_background(name: str) -> None:
    options = theme.options()
    background = options[f"theme.{name}.backgroundColor"]
    assert _contrast(options[f"theme.{name}.textColor"], background) > 12
    assert _contrast("#FFFFFF", options[f"theme.{name}.primaryColor"]) >= 4.5
    for colour in options[f"theme.{name}.chartCategoricalColors"]:
        assert _contrast(colour, background) >= 3, colour
