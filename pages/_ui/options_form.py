"""The part of the deploy form with the advanced serving options: collapsed, with the usual values."""

from __future__ import annotations

from typing import Any, Final

import streamlit as st

from control_plane.domain.options import (
    MAX_CACHE_BYTES,
    MAX_CHECK_INTERVAL_S,
    MAX_TTL_S,
    MIN_KEEP_HOURS,
    MIN_TTL_S,
    Patch,
)
from control_plane.ui.viewmodels import serving_options as views
from pages._ui import markup
from serving_agent.contract.options import (
    MAX_ROWS,
    MOST_KEPT_HOURS,
    MOST_SAMPLES_PER_MINUTE,
    Batching,
    Cache,
    Execution,
    Sampling,
    ServingOptions,
)

NAMES: Final = (
    "max_rows", "max_delay_ms", "buckets", "adaptive", "cache_mib", "ttl_s", "channels_last", "autocast",
    "compile", "max_concurrency", "check_interval_s", "per_minute", "keep_hours", "redact",
)  # fmt: skip
"""Ends of the widgets' keys."""


def draw(key: str, options: ServingOptions) -> None:
    """Widgets of all options under *key*, holding *options* at first."""
    with st.expander("Advanced serving options", key=f"{key}-advanced"):
        _batching(key, options.batching)
        _execution(key, options.execution)
        left, right = st.columns(2, gap="medium")
        with left:
            _cache(key, options.cache)
        with right:
            _limits(key, options)
        _sampling(key, options.sampling)


def chosen(key: str) -> Patch:
    """What the widgets under *key* hold now. Raises InvalidInputError."""
    values: dict[str, Any] = {name: st.session_state[f"{key}-{name}"] for name in NAMES}
    return views.patch(values)


def _batching(key: str, batching: Batching) -> None:
    st.html(markup.card_title("Batching", note="rows of several requests run as one"))
    one, two, three, four = st.columns([1, 1, 1.3, 1.2], vertical_alignment="bottom")
    one.number_input(
        "Largest batch, rows",
        1,
        MAX_ROWS,
        batching.max_rows,
        key=f"{key}-max_rows",
        help="Requests that arrive while the model is busy run together, up to so many rows. 1 turns it "
        "off. More rows take more memory and make each batch slower.",
    )
    two.number_input(
        "Wait for more, ms",
        0.0,
        1000.0,
        float(batching.max_delay_ms),
        step=0.5,
        format="%g",
        key=f"{key}-max_delay_ms",
        help="How long an idle model waits for more requests. 0 answers at once; more adds that latency to "
        "lone requests and makes larger batches.",
    )
    three.text_input(
        "Pad batches to, rows",
        views.buckets_text(batching.buckets),
        key=f"{key}-buckets",
        placeholder="no padding",
        help="Ascending sizes, for example 1, 2, 4, 8. Batches are filled up to the next size, so that the "
        "model sees few shapes: for torch.compile. The padding is computed and thrown away.",
    )
    four.toggle(
        "Refuse late requests",
        batching.adaptive,
        key=f"{key}-adaptive",
        help="Measures how long batches take, and answers 503 at once to a request that would miss its "
        "deadline, instead of computing an answer nobody waits for.",
    )


def _execution(key: str, execution: Execution) -> None:
    st.html(markup.card_title("Execution", note="compared with plain running when an agent starts"))
    one, two, three = st.columns([1.3, 1, 1], vertical_alignment="bottom")
    kinds = list(views.AUTOCAST_WORDS)
    one.selectbox(
        "Autocast",
        kinds,
        index=kinds.index(execution.autocast),
        format_func=views.AUTOCAST_WORDS.__getitem__,
        key=f"{key}-autocast",
        help="bfloat16 halves the memory traffic of heavy operations; outputs change in the third digit. "
        "Slower on processors without bfloat16.",
    )
    two.toggle(
        "Channels last",
        execution.channels_last,
        key=f"{key}-channels_last",
        help="Memory order of images that many convolutions run faster on. Costs a copy of every input.",
    )
    three.toggle(
        "torch.compile",
        execution.compile,
        key=f"{key}-compile",
        help="Translates the model when the agent starts: faster answers, a start that is longer by seconds "
        "to minutes. Needs a C++ compiler on the machine; not for TorchScript.",
    )


def _cache(key: str, cache: Cache) -> None:
    st.html(markup.card_title("Response cache", note="the same question, the same answer"))
    one, two = st.columns(2, vertical_alignment="bottom")
    one.number_input(
        "Memory, MiB",
        0.0,
        MAX_CACHE_BYTES / views.MIB,
        cache.max_bytes / views.MIB,
        step=16.0,
        format="%g",
        key=f"{key}-cache_mib",
        help="Per replica. 0 turns the cache off. Leave it off for models that draw random numbers.",
    )
    two.number_input(
        "Keep answers, s",
        MIN_TTL_S,
        MAX_TTL_S,
        float(cache.ttl_s),
        step=10.0,
        format="%g",
        key=f"{key}-ttl_s",
        help="How long an answer may be given again. A new version never gives answers of the old one.",
    )


def _limits(key: str, options: ServingOptions) -> None:
    st.html(markup.card_title("Limits and self-test", note="per replica"))
    one, two = st.columns(2, vertical_alignment="bottom")
    one.number_input(
        "Concurrency, requests",
        1,
        1_000_000,
        options.max_concurrency,
        key=f"{key}-max_concurrency",
        placeholder="no limit",
        help="Requests a replica works on or holds in its queue; the next one is answered 429. Empty: only "
        "the queue's bound counts (503).",
    )
    two.number_input(
        "Test every, s",
        0.0,
        MAX_CHECK_INTERVAL_S,
        float(options.check_interval_s),
        step=5.0,
        format="%g",
        key=f"{key}-check_interval_s",
        help="A replica runs an example through the model this often and leaves traffic after three "
        "failures in a row. Each test costs one inference. 0 turns it off.",
    )


def _sampling(key: str, sampling: Sampling) -> None:
    st.html(markup.card_title("Kept requests", note="for the debugger, in the memory of each replica"))
    one, two, three = st.columns([1, 1, 2], vertical_alignment="bottom")
    one.number_input(
        "Keep, requests a minute",
        0,
        MOST_SAMPLES_PER_MINUTE,
        sampling.per_minute,
        key=f"{key}-per_minute",
        help="So many requests a minute are kept with their answers and may be opened in the debugger. 0 "
        "keeps none.",
    )
    two.number_input(
        "For, hours",
        MIN_KEEP_HOURS,
        MOST_KEPT_HOURS,
        float(sampling.keep_hours),
        step=1.0,
        format="%g",
        key=f"{key}-keep_hours",
        help="After that they are forgotten; newer ones may crowd them out before; a restart forgets all.",
    )
    three.text_input(
        "Never keep the data of",
        ", ".join(sampling.redact),
        key=f"{key}-redact",
        placeholder="names of inputs and outputs",
        help="Names, separated by commas. Of these only type and shape are kept, for rollouts too.",
    )
