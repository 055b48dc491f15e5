"""Widgets of a method's parameters, made from their JSON schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from control_plane.ui.viewmodels import optimization_form as views
from control_plane.ui.viewmodels.optimization_form import Field

A_ROW = 3


def draw(schema: Mapping[str, Any], *, key: str) -> dict[str, Any]:
    """Draw the fields under *key*; returns what they hold as the method takes it. InvalidInputError."""
    fields = views.fields(schema)
    typed: dict[str, Any] = {}
    for start in range(0, len(fields), A_ROW):
        for place, field in zip(st.columns(A_ROW), fields[start : start + A_ROW], strict=False):
            with place:
                typed[field.name] = _widget(field, f"{key}-{field.name}")
    return views.values(fields, typed)


def _widget(field: Field, key: str) -> Any:
    if field.kind == "choice":
        return _choice(field, key)
    if field.kind == "switch":
        return st.toggle(field.label, bool(field.default), key=key, help=field.help or None)
    if field.kind in ("number", "integer"):
        return _number(field, key)
    if field.kind == "names":
        return _names(field, key)
    default = "" if field.default is None else str(field.default)
    return st.text_input(field.label, default, key=key, help=field.help or None)


def _choice(field: Field, key: str) -> Any:
    if field.short:
        return st.segmented_control(
            field.label,
            field.choices,
            default=field.default,
            key=key,
            required=not field.optional,
            help=field.help or None,
        )
    place = field.choices.index(field.default) if field.default in field.choices else None
    return st.selectbox(field.label, field.choices, index=place, key=key, help=field.help or None)


def _number(field: Field, key: str) -> Any:
    kind = int if field.kind == "integer" else float
    low, high, step, default = (
        None if value is None else kind(value) for value in (field.low, field.high, field.step, field.default)
    )
    bounds: dict[str, Any] = {"min_value": low, "max_value": high, "value": default, "step": step}
    return st.number_input(
        field.label,
        **bounds,
        format=None if kind is int else "%g",
        key=key,
        help=field.help or None,
        placeholder="not set" if field.optional else None,
    )


def _names(field: Field, key: str) -> Sequence[str]:
    given: Sequence[str] = st.multiselect(
        field.label,
        list(field.default or ()),
        list(field.default or ()),
        key=key,
        help=field.help or None,
        accept_new_options=True,
        placeholder="none",
    )
    return given
