"""How variants are measured, and what one may lose and must win: collapsed, with the usual values."""

from __future__ import annotations

import os
from typing import Any

import streamlit as st

from control_plane.domain.optimization import Budget, Conditions
from control_plane.ui.viewmodels import optimization_form as views
from pages._ui import markup

USUAL, LIMITS = Conditions(), Budget()


def draw(key: str) -> tuple[Conditions, Budget]:
    """Widgets under *key*; returns what they hold. Raises InvalidInputError."""
    with st.expander("Measuring and limits", key=f"{key}-limits"):
        measuring = _measuring(key)
        limits = _limits(key)
    return views.conditions(**measuring), views.budget(**limits)


def _measuring(key: str) -> dict[str, Any]:
    st.html(markup.card_title("Measuring", note="parent and variant in turn, in one run"))
    one, two, three = st.columns(3)
    return {
        "batch_text": one.text_input(
            "Batch sizes, rows",
            ", ".join(map(str, USUAL.batches)),
            key=f"{key}-batches",
            help="Every size is measured. Latency counts at the smallest, throughput at the largest.",
        ),
        "threads": two.number_input(
            "CPU threads",
            1,
            os.cpu_count() or 1,
            USUAL.threads,
            key=f"{key}-threads",
            help="Of one inference: as many as a serving agent will have.",
        ),
        "rounds": three.number_input(
            "Paired rounds",
            3,
            101,
            USUAL.rounds,
            step=2,
            key=f"{key}-rounds",
            help="For each batch size. More rounds, a smaller spread, a longer job.",
        ),
    }


def _limits(key: str) -> dict[str, float]:
    st.html(markup.card_title("Limits", note="a variant outside them is kept as rejected, with its numbers"))
    one, two, three, four = st.columns(4, vertical_alignment="bottom")
    return {
        "agreement_percent": one.number_input(
            "Same answer, ≥ %",
            0.0,
            100.0,
            LIMITS.min_agreement * 100,
            step=0.1,
            format="%g",
            key=f"{key}-agreement",
            help="Share of rows that both answer alike, by its 95 % lower bound; or the next one.",
        ),
        "drop_points": two.number_input(
            "Right answers lost, ≤ pp",
            0.0,
            100.0,
            LIMITS.max_metric_drop * 100,
            step=0.1,
            format="%g",
            key=f"{key}-drop",
            help="In percentage points, where right answers are known: enough instead of the same answers.",
        ),
        "speedup": three.number_input(
            "Faster, ≥ ×",
            1.0,
            100.0,
            LIMITS.min_speedup,
            step=0.1,
            format="%g",
            key=f"{key}-speedup",
            help="At any measured batch size; or the next one.",
        ),
        "shrink": four.number_input(
            "Smaller, ≥ ×",
            1.0,
            100.0,
            LIMITS.min_shrink,
            step=0.1,
            format="%g",
            key=f"{key}-shrink",
            help="Artefact size of the parent divided by the variant's: enough instead of being faster.",
        ),
    }
