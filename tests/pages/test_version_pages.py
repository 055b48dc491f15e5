"""A version's page and the comparison of two, as a viewer sees them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from streamlit.testing.v1 import AppTest

from control_plane.jobs import run
from control_plane.services import jobs, registration, rejudging, versions
from control_plane.services.context import Context
from tests.fakes import seeded
from tests.fakes.registry import files
from tests.pages.conftest import OpenPage


def words(app: AppTest) -> str:
    assert not app.exception
    parts = [each.proto.body for each in app.get("html")]
    return " ".join([*parts, *(each.value for each in app.title)])


def weights(ctx: Context, folder: Path, scale: float, **changes: object) -> str:
    folder.mkdir()
    save_file(
        {"w": np.full((2, 2), scale, np.float32), "b": np.ones(2, np.float32)}, folder / "model.safetensors"
    )
    (folder / "config.json").write_text(json.dumps({"hidden": scale}))
    given = {"handler": "tensor", "signature": seeded.DIGITS, "actor": "ana", **changes}
    return registration.register(ctx, model="llm", files_dir=folder, format="huggingface", **given)  # type: ignore[arg-type]


def work(ctx: Context) -> None:
    claimed = jobs.claim(ctx, 1, 1.0)
    assert claimed is not None
    run.perform(ctx, claimed)


def test_a_version_tells_where_it_comes_from(empty: Context, open_page: OpenPage, tmp_path: Path) -> None:
    left_out = [{"path": "model.pt!/optimizer", "size_bytes": 4096, "why": "optimiser state"}]
    weights(empty, tmp_path / "a", 1.0)
    ref = weights(
        empty,
        tmp_path / "b",
        2.0,
        parent_ref="llm@1",
        lineage={"run": {"step": 120}},
        evidence_dir=files(tmp_path / "original", model=b"the pickle"),
        verdict={"decision": "convert", "code": "pickled-weights", "left_out": left_out},
    )
    app = open_page("versions", id=ref)
    said = words(app)
    detail = versions.get(empty, ref)
    for expected in (
        "Converted", "pickled-weights", "model.pt!/optimizer", "optimiser state", "Original upload",
        str(detail.evidence_digest), detail.evidence_files[0].sha256, "sb-tree", "run.step", "Signed by key",
    ):  # fmt: skip
        assert expected in said, expected
    assert detail.files[0].sha256 in app.code[0].value
    app.button(key="verify").click().run()
    assert jobs.search(empty, kind="verify").items[0].subject == ref
    app.button(key="rejudge").click().run()
    assert jobs.search(empty, kind="rejudge").items[0].subject == ref


def test_what_the_gate_refuses_is_marked_everywhere(filled: Context, open_page: OpenPage) -> None:
    rejudging.queue(filled, ref="digits@1", actor="ana")
    work(filled)
    page = words(open_page("versions", id="digits@1"))
    assert "Refused" in page
    assert "sb-problem" in page
    assert "✕ Refused" in list(open_page("versions").dataframe[0].value["Gate"])
    assert "digits@1 is refused by the gate" in words(open_page("endpoints", name="digits"))


def test_a_protected_alias_cannot_be_taken_off(filled: Context, open_page: OpenPage) -> None:
    app = open_page("versions", id="digits@1")
    assert app.button(key="alias-champion").disabled
    other = open_page("versions", id="digits@2")
    other.text_input(key="new-alias").set_value("champion")
    other.button(key="set-alias").click().run()
    assert "digits@champion is protected" in words(other)
    assert versions.model(filled, "digits").aliases == {"champion": "digits@1"}


def test_two_versions_side_by_side(empty: Context, open_page: OpenPage, tmp_path: Path) -> None:
    weights(empty, tmp_path / "a", 1.0)
    weights(empty, tmp_path / "b", 2.5)
    app = open_page("versions", compare="llm@1,llm@2")
    assert "llm@1 and llm@2" in words(app)
    assert "hidden" in words(app)
    assert not app.dataframe
    app.button(key="compare-start").click().run()
    assert "is being compared" not in words(app)
    work(empty)
    app = open_page("versions", compare="llm@1,llm@2")
    assert "2 tensors: 1 same, 1 values differ; largest |Δ| 1.5." in words(app)
    (table,) = app.dataframe
    assert list(table.value["Tensor"]) == ["w"]
    app.toggle(key="everything").set_value(True).run()
    assert list(app.dataframe[0].value["Tensor"]) == ["w", "b"]


def test_programs_say_that_their_weights_are_not_compared(filled: Context, open_page: OpenPage) -> None:
    said = words(open_page("versions", compare="digits@1,digits@2"))
    assert "digits@1 is TorchScript and digits@2 is TorchScript: compared by metadata and files only" in said


def test_a_broken_address_is_a_sentence(filled: Context, open_page: OpenPage) -> None:
    for pair in ("digits@1", "digits@1,", "digits@1,nope@2", ",,"):
        assert "sb-problem" in words(open_page("versions", compare=pair)), pair
