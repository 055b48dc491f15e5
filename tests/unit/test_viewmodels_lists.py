"""Versions, activity, overview and live: rows, pages, figures."""

import csv
import io
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain.views import Attention, EventView, Status, VersionView
from control_plane.ui.viewmodels import activity, live, overview, versions

NOW = 1_000_000.0
STATUS = Status(
    models=0, versions=0, endpoints=0, agents_ready=0, agents_wanted=0, jobs_running=0, jobs_queued=0,
    controller="leading", gateway="serving", disk_free_bytes=1, disk_total_bytes=2, gpus=(),
)  # fmt: skip


def bundle(**panels: list[Any]) -> dict[str, Any]:
    return {
        "panels": [
            {"id": name, "title": name, "unit": "s", "empty": None, "lines": lines}
            for name, lines in panels.items()
        ]
    }


def line(endpoint: str, *values: float | None) -> dict[str, Any]:
    return {
        "name": endpoint,
        "labels": {"endpoint": endpoint},
        "x": list(range(len(values))),
        "y": list(values),
    }


def test_figures_join_endpoints() -> None:
    data = bundle(
        request_rate=[line("a", 1.0, 2.0, None), line("b", None, 3.0, None), line("", 9.0, 9.0, 9.0)],
        latency_p99=[line("a", None, 0.004), line("b", None, 0.009)],
    )
    shown = {figure.label: figure for figure in overview.key_figures(STATUS, data)}
    assert shown["Requests"].values == (1.0, 5.0, None)
    assert shown["Requests"].value == "5.0/s"
    assert shown["p99 latency"].value == "9 ms"
    assert shown["Error rate"].value == "–"
    assert shown["Host memory"].value == "–"


def test_a_figure_is_forgotten_when_nothing_new_is_measured() -> None:
    assert overview.latest((5.0, *([None] * overview.RECENT_POINTS))) is None
    assert overview.latest((5.0, None, None)) == 5.0


def test_traffic_is_of_one_endpoint() -> None:
    data = bundle(request_rate=[line("a", 7.0), line("b", 100.0)])
    assert overview.traffic(data, "a").requests == "7.0/s"
    assert overview.traffic({}, "a") == overview.Traffic("–", "–", "–")


def test_missing_agents_are_a_warning() -> None:
    from dataclasses import replace

    figure = overview.key_figures(replace(STATUS, agents_wanted=3, agents_ready=2), {})[0]
    assert (figure.value, figure.tone) == ("2 / 3", "warn")


def test_attention_names_people_things_only() -> None:
    hidden = (Attention("upload", "a" * 32, "waits", "/"), Attention("gateway", "gateway", "down", "/"))
    assert [overview.named(item) for item in hidden] == ["", ""]
    assert overview.named(Attention("endpoint", "digits", "Crash loop", "/")) == "digits"


def test_live_ranges_and_units() -> None:
    assert live.range_seconds("1 h") == 3600
    assert live.range_seconds("../x") == live.range_seconds(None) == 900
    rows = live.latest_rows(bundle(latency_p99=[line("a", 0.002, 0.001, None)]))
    assert rows == [{"Series": "latency_p99", "Of": "a", "Now": "1 ms", "Highest": "2 ms"}]


@given(st.text(max_size=12) | st.none(), st.integers(0, 10**6), st.integers(1, 500))
def test_page_numbers_from_addresses_are_always_usable(text: str | None, total: int, size: int) -> None:
    page = versions.clamp_page(text, total, size)
    assert 1 <= page <= versions.pages(total, size)


def test_version_rows() -> None:
    view = VersionView(
        id="1",
        ref="digits@2",
        model="digits",
        number=2,
        format="torchscript",
        handler="tensor",
        digest="sha256:" + "a" * 64,
        size_bytes=2048,
        aliases=("champion",),
        tags={"stage": "new", "gpu": ""},
        details={},
        served_by=("digits",),
        created_by="ana",
        created_at=NOW,
        archived_at=None,
    )
    row = versions.rows([view], None)[0]
    assert set(versions.COLUMNS) <= set(row)
    assert (row["Tags"], row["Format"], row["Size"]) == ("gpu, stage=new", "TorchScript", "2 KiB")
    assert versions.format_words("unheard-of") == "unheard-of"


def test_metadata_in_words() -> None:
    rows = dict(
        versions.detail_rows(
            {"test_accuracy": 0.9712, "train_s": 3.4, "parameters": 11210, "dataset": "digits"}
        )
    )
    assert rows == {"Test accuracy": "97.12 %", "Train": "3.4 s", "Parameters": "11,210", "Dataset": "digits"}


@given(st.lists(st.text(max_size=20), min_size=4, max_size=4))
def test_csv_reads_back_and_holds_no_formula(texts: list[str]) -> None:
    actor, action, subject, message = texts
    written = activity.as_csv([EventView(1, NOW, actor, action, subject, message, {})])
    rows = list(csv.reader(io.StringIO(written, newline="")))
    assert rows[1][1] == "1970-01-12T13:46:40Z"
    for cell, original in zip(rows[1][2:], texts, strict=True):
        assert (
            cell.removeprefix("'").replace("\r\n", "\n") == original.removeprefix("'").replace("\r\n", "\n")
            or cell == original
        )
        assert not cell.startswith(("=", "+", "-", "@"))
