"""Serving options: merged, told, read from flags, forms and files; every way gives the same change."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from control_plane.api.schemas import OptionsBody
from control_plane.cli import serving_options as flags
from control_plane.domain import options
from control_plane.domain.endpoint import HealthCheck, ServingSpec
from control_plane.domain.goal import Wish
from control_plane.errors import InvalidInputError
from control_plane.services import deployments_export
from control_plane.services.deployments_file import parse
from control_plane.ui.viewmodels import serving_options as views
from serving_agent.contract.options import Batching, Cache, Execution, Sampling, ServingOptions
from serving_agent.contract.status import OptionsEffect

SET = ServingOptions(
    batching=Batching(max_rows=64, max_delay_ms=2, buckets=(1, 2, 4, 8), adaptive=True),
    cache=Cache(max_bytes=64 * 1024**2, ttl_s=30),
    execution=Execution(channels_last=True, autocast="bf16", compile=True),
    max_concurrency=128,
    check_interval_s=5,
    sampling=Sampling(per_minute=6, keep_hours=2, redact=("text", "image")),
)


@st.composite
def any_options(draw: st.DrawFn) -> ServingOptions:
    rows = draw(st.integers(1, 4096))
    sizes = draw(st.sets(st.integers(1, rows), max_size=5))
    return ServingOptions(
        batching=Batching(
            max_rows=rows,
            max_delay_ms=draw(st.floats(0, 1000)),
            buckets=tuple(sorted(sizes)),
            adaptive=draw(st.booleans()),
        ),
        cache=Cache(max_bytes=draw(st.integers(0, 2**40)), ttl_s=draw(st.floats(0.1, 1e6))),
        execution=Execution(
            channels_last=draw(st.booleans()),
            autocast=draw(st.sampled_from(("off", "bf16"))),
            compile=draw(st.booleans()),
        ),
        max_concurrency=draw(st.none() | st.integers(1, 10**6)),
        check_interval_s=draw(st.just(0.0) | st.floats(1, 86400)),
        sampling=Sampling(
            per_minute=draw(st.integers(0, 600)),
            keep_hours=draw(st.floats(0.02, 168)),
            redact=tuple(draw(st.sets(st.sampled_from("abc")))),
        ),
    )


@given(any_options(), any_options())
def test_a_full_patch_gives_those_options_whatever_was_there(
    before: ServingOptions, after: ServingOptions
) -> None:
    assert options.merged(before, msgspec.to_builtins(after)) == after
    assert options.merged(options.DEFAULT, options.nested(after)) == after
    assert options.merged(after, {}) == after


PATCHES = st.fixed_dictionaries(
    {},
    optional={
        "batching": st.fixed_dictionaries(
            {}, optional={"max_rows": st.none() | st.integers(1, 4096), "adaptive": st.booleans()}
        ),
        "cache": st.fixed_dictionaries({}, optional={"ttl_s": st.floats(1, 100)}),
        "max_concurrency": st.none() | st.integers(1, 9),
    },
)


@given(PATCHES, PATCHES)
def test_two_patches_in_one_do_as_one_after_the_other(first: dict[str, Any], second: dict[str, Any]) -> None:
    start = ServingOptions(max_concurrency=3, cache=Cache(ttl_s=7))
    one_by_one = options.merged(options.merged(start, first), second)
    together = Wish(options=second).over(Wish(options=first)).options
    assert options.merged(start, together or {}) == one_by_one


def test_null_goes_back_to_the_default_and_silence_keeps() -> None:
    kept = options.merged(SET, {"max_concurrency": None, "batching": {"max_delay_ms": None}, "cache": None})
    assert kept.max_concurrency is None
    assert kept.cache == Cache()
    assert kept.batching == Batching(max_rows=64, buckets=(1, 2, 4, 8), adaptive=True)


@pytest.mark.parametrize(
    ("patch", "says"),
    [
        ({"batching": {"max_rows": 0}}, "options.batching: max_rows must be 1 to 4096"),
        ({"batching": {"max_rows": "x"}}, "options.batching.max_rows: Expected `int`"),
        ({"batching": {"buckets": [4, 2]}}, "options.batching: buckets must be ascending"),
        ({"batching": {"bucket": 1}}, "options.batching: Object contains unknown field `bucket`"),
        ({"batching": 7}, "options.batching: Expected `object`"),
        ({"colour": 1}, "options: Object contains unknown field `colour`"),
        ({"execution": {"autocast": "fp8"}}, "options.execution.autocast: Invalid enum value"),
        ({"cache": {"ttl_s": 0}}, "options.cache: ttl_s must be more than 0"),
        ({"cache": {"ttl_s": math.inf}}, "options.cache.ttl_s must be from 0.1 to 2592000, not inf"),
        ({"cache": {"ttl_s": 0.09}}, "options.cache.ttl_s must be from 0.1 to 2592000, not 0.09"),
        ({"cache": {"ttl_s": math.nan}}, "options.cache: ttl_s must be more than 0"),
        ({"cache": {"max_bytes": 10**400}}, "options.cache.max_bytes must be from 0 to 10995116"),
        ({"max_concurrency": 10**400}, "options.max_concurrency must be from 1 to 1000000, not a num"),
        ({"cache": {"ttl_s": 10**400}}, "options.cache.ttl_s: Number out of range"),
        ({"cache": {"max_bytes": 2**41}}, "options.cache.max_bytes must be from 0 to"),
        ({"check_interval_s": math.nan}, "options.check_interval_s must be 0, or from 1 to 86400, not nan"),
        ({"check_interval_s": 0.01}, "options.check_interval_s must be 0, or from 1 to 86400, not 0.01"),
        ({"sampling": {"per_minute": 601}}, "options.sampling: per_minute must be 0 to 600"),
        ({"sampling": {"keep_hours": 0.001}}, "options.sampling.keep_hours must be from 0.016"),
        ({"sampling": {"keep_hours": math.nan}}, "options.sampling: keep_hours must be more than 0"),
        ({"sampling": {"redact": ["a", "a"]}}, "options.sampling: redact must be different names"),
        ({"max_concurrency": 10**7}, "options.max_concurrency must be from 1 to 1000000"),
    ],
    ids=lambda each: str(each)[:60],
)
def test_what_is_not_usable_is_named(patch: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        options.check_patch(patch)
    assert caught.value.message.startswith(says)
    assert caught.value.next_step


def test_buckets_are_held_against_the_rows_they_meet() -> None:
    assert options.check_patch({"batching": {"buckets": [64]}})
    with pytest.raises(InvalidInputError, match="buckets must be"):
        options.merged(options.DEFAULT, {"batching": {"buckets": [64]}})


def test_specs_of_before_there_were_options_are_still_read() -> None:
    old = {"version_id": "v", "version_ref": "m@1", "handler": "tensor", "device": "cpu", "threads": 1}
    spec = msgspec.convert({**old, "memory_bytes": None, "restart": 0}, ServingSpec)
    assert spec.options == options.DEFAULT
    assert msgspec.convert(msgspec.json.decode(msgspec.json.encode(spec)), ServingSpec) == spec


def test_flags_form_rest_and_file_ask_for_the_same() -> None:
    by_flags = flags.change(
        max_batch_rows=64, batch_delay_ms=2, batch_buckets="1,2, 4,8", adaptive_batching=True, cache_mib=64,
        cache_ttl_s=30, channels_last=True, autocast="bf16", compile=True, max_concurrency=128,
        check_interval_s=5, samples_per_minute=6, samples_kept_h=2, redact="text,image",
    )  # fmt: skip
    by_form = views.patch(
        {
            "max_rows": 64, "max_delay_ms": 2.0, "buckets": "1, 2 4,8", "adaptive": True, "cache_mib": 64.0,
            "ttl_s": 30.0, "channels_last": True, "autocast": "bf16", "compile": True, "max_concurrency": 128,
            "check_interval_s": 5.0, "per_minute": 6, "keep_hours": 2.0, "redact": "text, image",
        }
    )  # fmt: skip
    by_rest = OptionsBody.model_validate(by_flags).patch
    by_file = parse(
        "deployments:\n- endpoint: a\n  version: m@1\n  options:\n"
        "    batching: {max_rows: 64, max_delay_ms: 2, buckets: [1, 2, 4, 8], adaptive: true}\n"
        "    cache: {max_bytes: 64MiB, ttl_s: 30}\n"
        "    execution: {channels_last: true, autocast: bf16, compile: true}\n"
        "    max_concurrency: 128\n    check_interval_s: 5\n"
        "    sampling: {per_minute: 6, keep_hours: 2, redact: [text, image]}\n"
    )
    for patch in (by_flags, by_form, by_rest, by_file.deployments[0].wish.options or {}):
        assert options.merged(options.DEFAULT, patch) == SET


def test_flags_left_out_change_nothing_and_zero_lifts_the_bound() -> None:
    assert flags.change() == {}
    assert flags.change(adaptive_batching=False, batch_buckets="none", max_concurrency=0) == {
        "batching": {"adaptive": False, "buckets": []},
        "max_concurrency": None,
    }
    with pytest.raises(InvalidInputError, match="list of numbers"):
        flags.change(batch_buckets="1;2")


@pytest.mark.parametrize(
    ("lines", "at", "says"),
    [
        ("batching: {max_row: 3}", "max_row:", "did you mean 'max_rows'"),
        ("batching: {max_rows: many}", "many", "Expected `int`"),
        ("batching: {max_rows: 9999}", "9999", "max_rows must be 1 to 4096"),
        ("cache: {max_bytes: much}", "much", "must be like 512MiB"),
        ("execution: fast", "fast", "must be a mapping"),
        ("batchin: {}", "batchin:", "did you mean 'batching'"),
        ("check_interval_s: -1", "-1", "must not be negative"),
        ("max_concurrency: !!python/name:os.system x", "!!python", "not a plain value"),
        ("max_concurrency: &a [*a]", "&a", "not a plain value"),
    ],
)
def test_faults_of_a_file_have_their_place(lines: str, at: str, says: str) -> None:
    text = f"deployments:\n- endpoint: a\n  version: m@1\n  options: {{{lines}}}\n"
    with pytest.raises(InvalidInputError) as caught:
        parse(text)
    problem = caught.value.details["problems"][0]
    assert says in problem["message"]
    assert (problem["line"], problem["column"]) == (4, text.splitlines()[3].index(at) + 1)


def test_a_models_options_fill_what_a_deployment_leaves_open() -> None:
    wanted = parse(
        "models:\n  m:\n    options: {batching: {max_rows: 8}, max_concurrency: 4}\n"
        "deployments:\n- endpoint: a\n  version: m@1\n"
        "  options: {batching: {adaptive: true}, max_concurrency: default}\n"
    )
    merged = options.merged(ServingOptions(max_concurrency=9), wanted.deployments[0].wish.options or {})
    assert merged == ServingOptions(batching=Batching(max_rows=8, adaptive=True))


@given(any_options(), any_options())
def test_exported_options_bring_back_exactly_those(exported: ServingOptions, present: ServingOptions) -> None:
    entry = {"endpoint": "a", "version": "m@1", "options": deployments_export.options_entry(exported)}
    for models in ({}, {"models": {"m": {"options": deployments_export.options_entry(present)}}}):
        wanted = parse(yaml.safe_dump({**models, "deployments": [entry]}))
        assert options.merged(present, wanted.deployments[0].wish.options or {}) == exported


def test_exported_options_name_only_what_differs() -> None:
    assert deployments_export.options_entry(options.DEFAULT) == "default"
    assert deployments_export.options_entry(ServingOptions(cache=Cache(max_bytes=5))) == {
        "batching": "default",
        "cache": {"max_bytes": 5, "ttl_s": "default"},
        "execution": "default",
        "sampling": "default",
        "max_concurrency": "default",
        "check_interval_s": "default",
    }


def test_a_whole_section_goes_back_to_the_default_under_what_a_deployment_adds() -> None:
    wanted = parse(
        "models:\n  m:\n    options: {batching: default, cache: {ttl_s: 5}}\n"
        "deployments:\n- endpoint: a\n  version: m@1\n  options: {batching: {adaptive: true}}\n"
        "- endpoint: b\n  version: m@1\n  options: default\n"
    )
    some, none = (options.merged(SET, each.wish.options or {}) for each in wanted.deployments)
    assert some.batching == Batching(adaptive=True)
    assert some.cache == Cache(max_bytes=SET.cache.max_bytes, ttl_s=5)
    assert none == options.DEFAULT


def test_options_in_words() -> None:
    assert dict(views.rows(options.DEFAULT)) == {
        "Batching": "up to 32 rows",
        "Response cache": "off",
        "Execution": "as stored",
        "Concurrency": "bounded by the queue alone",
        "Self-test": "every 15 s",
        "Kept requests": "none",
    }
    assert dict(views.rows(SET)) == {
        "Batching": "up to 64 rows, waits 2 ms for more, padded to 1, 2, 4, 8, refuses what would be late",
        "Response cache": "64 MiB, answers kept for 30 s",
        "Execution": "channels last, bfloat16 autocast, torch.compile",
        "Concurrency": "128 requests per agent",
        "Self-test": "every 5 s",
        "Kept requests": "6 a minute, for 2 h, never the data of text, image",
    }


@pytest.mark.parametrize(
    ("plain", "optimized", "says"),
    [
        (0.0051, 0.003, "1.7x faster than without options (5.10 ms → 3 ms)"),
        (0.003, 0.0051, "1.7x slower than without options (3 ms → 5.10 ms)"),
        (0.003, 0.003, "as fast as without options (3 ms → 3 ms)"),
        (0.003, 0.0, "too fast to compare with running without options (3 ms → 0 ms)"),
    ],
)  # fmt: skip
def test_the_effect_is_said_as_a_ratio(plain: float, optimized: float, says: str) -> None:
    effect = OptionsEffect(plain_s=plain, optimized_s=optimized, largest_difference=0.003)
    assert views.effect_words(effect) == f"{says}, finite answers differ by at most 0.003"


def test_the_last_failed_test_is_said_with_its_time() -> None:
    assert views.check_words(HealthCheck("healthy", 900.0), 1000.0) == ""
    failing = HealthCheck("unhealthy", 910.0, "logits hold NaN", 940.0)
    assert views.check_words(failing, 1000.0) == "The self-test has failed for 1 min 30 s: logits hold NaN"
    late = HealthCheck("error", 995.0, "the queue is full", 940.0)
    assert views.check_words(late, 1000.0) == "The self-test could not be run for 5.0 s: the queue is full"
    recovered = HealthCheck("healthy", 990.0, "logits hold NaN", 940.0)
    assert views.check_words(recovered, 1000.0) == "The self-test last failed 1 min ago: logits hold NaN"
