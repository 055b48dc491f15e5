"""What is read out of Prometheus' text format."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from control_plane.telemetry.exposition import Reader, Source, read
from control_plane.telemetry.samples import Key, SampleKind, labels_of

ENVOY = """\
# TYPE envoy_gwm_requests counter
envoy_gwm_requests{endpoint="digits",version="digits@2",code="200",grpc=""} 13
envoy_gwm_requests{endpoint="digits",version="digits@2",code="200",grpc="0"} 4
envoy_gwm_requests{endpoint="",version="",code="404",grpc=""} 1
# TYPE envoy_gwm_latency_us histogram
envoy_gwm_latency_us_bucket{endpoint="digits",version="digits@2",le="500"} 2
envoy_gwm_latency_us_bucket{endpoint="digits",version="digits@2",le="1000"} 5
envoy_gwm_latency_us_bucket{endpoint="digits",version="digits@2",le="+Inf"} 6
envoy_gwm_latency_us_sum{endpoint="digits",version="digits@2"} 5000
envoy_gwm_latency_us_count{endpoint="digits",version="digits@2"} 6
"""


def test_counters_are_summed_over_labels_not_asked_for() -> None:
    source = Source("envoy_gwm_requests", "requests", SampleKind.COUNTER, ("endpoint", "version"))

    totals = {total.key.labels: total.value for total in read(ENVOY, [source]).totals}
    assert totals == {
        (("endpoint", "digits"), ("version", "digits@2")): 17,
        (("endpoint", ""), ("version", "")): 1,
    }


def test_a_histogram_becomes_single_counts_in_seconds() -> None:
    source = Source("envoy_gwm_latency_us", "latency", SampleKind.HISTOGRAM, ("endpoint",), scale=1e-6)

    (total,) = read(ENVOY, [source]).totals
    assert total.key == Key("latency", (("endpoint", "digits"),), SampleKind.HISTOGRAM, (0.0005, 0.001))
    assert (total.value, total.counts) == (6, (2, 3, 1))


def test_what_agents_export_is_read() -> None:
    registry = CollectorRegistry()
    Counter("hits", "h", ["code"], registry=registry).labels("200").inc(3)
    Gauge("busy", "b", ["kind"], registry=registry).labels("x").set(2.5)
    Histogram("took_seconds", "t", buckets=(0.1, 1.0), registry=registry).observe(0.5)
    sources = [
        Source("hits", "hits", SampleKind.COUNTER, (), added={"agent": "a"}),
        Source("busy", "busy", SampleKind.GAUGE, ("kind",)),
        Source("took_seconds", "took", SampleKind.HISTOGRAM, ()),
    ]

    reading = read(generate_latest(registry).decode(), sources)
    assert {total.key.name: (total.value, total.counts) for total in reading.totals} == {
        "hits": (3, ()),
        "took": (1, (0, 1, 0)),
    }
    assert reading.gauges == {Key("busy", (("kind", "x"),)): 2.5}
    assert reading.totals[0].key.labels == (("agent", "a"),)


def test_unknown_names_are_left_alone() -> None:
    assert read("whatever 3\n", []).totals == []


def test_sum_and_count_of_a_histogram_are_counters_of_their_own() -> None:
    registry = CollectorRegistry()
    rows = Histogram("model_batch_rows", "about", buckets=(1, 8), registry=registry)
    for size in (1, 8, 3):
        rows.observe(size)
    sources = [
        Source("model_batch_rows_sum", "batches", SampleKind.COUNTER, (), added={"code": "rows"}),
        Source("model_batch_rows_count", "batches", SampleKind.COUNTER, (), added={"code": "batches"}),
        Source("model_batch_rows", "rows", SampleKind.HISTOGRAM, ()),
    ]

    totals = read(generate_latest(registry).decode(), sources).totals
    assert {(t.key.name, t.key.labels): t.value for t in totals} == {
        ("batches", (("code", "rows"),)): 12,
        ("batches", (("code", "batches"),)): 3,
        ("rows", ()): 3,
    }


texts = st.text(st.characters(blacklist_categories=("Cs",)))
counts = st.dictionaries(st.tuples(texts, texts), st.integers(0, 2**40), max_size=5)


@given(st.lists(counts, min_size=1, max_size=4))
def test_whatever_stands_in_labels_is_read_back_however_often(
    rounds: list[dict[tuple[str, str], int]],
) -> None:
    """One reader, several texts of the same process: what is gone from a text is gone from the reading."""
    source = Source("hits", "stored", SampleKind.COUNTER, ("a", "b"), renamed={"b": "code"}, added={"c": "d"})
    reader = Reader([source])
    for values in rounds:
        registry = CollectorRegistry()
        exported = Counter("hits", "about", ["a", "b"], registry=registry)
        for (a, b), count in values.items():
            exported.labels(a, b).inc(count)

        totals = reader.read(generate_latest(registry).decode()).totals
        assert {(t.key.labels, t.value) for t in totals} == {
            (labels_of({"a": a, "code": b, "c": "d"}), count) for (a, b), count in values.items()
        }


@given(st.lists(st.lists(st.floats(0, 9), max_size=8), min_size=1, max_size=4))
def test_histograms_are_read_back_however_often(rounds: list[list[float]]) -> None:
    source = Source("took", "took", SampleKind.HISTOGRAM, ("who",))
    reader = Reader([source])
    registry = CollectorRegistry()
    exported = Histogram("took", "about", ["who"], buckets=(1, 2, 5), registry=registry)
    seen: list[float] = []
    for number, values in enumerate(rounds):
        for value in values:
            exported.labels("a").observe(value)
            exported.labels(f"new{number}").observe(value)
        seen += values

        found = {t.key.labels: t for t in reader.read(generate_latest(registry).decode()).totals}
        assert all(total.key.bounds == (1, 2, 5) for total in found.values())
        if seen:
            edges = ((-1, 1), (1, 2), (2, 5), (5, 10))
            wanted = tuple(sum(low < value <= high for value in seen) for low, high in edges)
            assert found[("who", "a"),].counts == wanted


def test_one_line_can_mean_several_things() -> None:
    rows = [
        Source("rows_sum", "rows", SampleKind.COUNTER, ()),
        Source("rows_sum", "again", SampleKind.COUNTER, ("x",)),
    ]

    totals = read('rows_sum{x="1"} 3\nrows_sum{x="2"} 4\n', rows).totals
    assert {(t.key.name, t.key.labels): t.value for t in totals} == {
        ("rows", ()): 7,
        ("again", (("x", "1"),)): 3,
        ("again", (("x", "2"),)): 4,
    }


@pytest.mark.parametrize(
    "text", ["<html>\n", "hits{a=1} 3\n", 'hits{a="1} 3\n', "hits x\n", "hits\n", "a b c\n"]
)
def test_what_is_not_in_the_format_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"Prometheus|could not convert"):
        read(text, [Source("hits", "hits", SampleKind.COUNTER, ())])


def test_a_reader_forgets_lines_that_are_gone() -> None:
    reader = Reader([Source("hits", "hits", SampleKind.COUNTER, ("n",))])
    for number in range(50):
        reader.read("".join(f'hits{{n="{number * 10 + k}"}} 1\n' for k in range(10)))

    assert len(reader._cells_of) <= 30
