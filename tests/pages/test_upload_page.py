"""The upload page beside its form: unfinished uploads, and uploads by reference."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from control_plane.services import imports, tus, uploads
from control_plane.services.context import Context, open_context
from control_plane.ui import current
from tests.pages.conftest import OpenPage


def words(app: AppTest) -> str:
    assert not app.exception
    return " ".join(str(block.proto.body) for block in app.get("html"))


@pytest.fixture
def importing(empty: Context, tmp_path: Path) -> Context:
    """A registry whose settings allow to import from `<tmp_path>/data`."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "model.pt").write_bytes(b"weights")
    changed = empty.settings.model_copy(update={"import_roots": (tmp_path / "data",)})
    ctx = open_context(changed)
    current.use(ctx)
    return ctx


def test_unfinished_uploads_say_how_far_they_are(empty: Context, open_page: OpenPage) -> None:
    upload = uploads.create(empty, model="half", files=[("a.pt", 2048)], actor="ana")
    transfer = tus.begin(empty, upload.id, "a.pt", size_bytes=2048)
    with tus.receive(empty, transfer.id, offset=0) as incoming:
        incoming.write(b"x" * 1024)
    app = open_page("upload")
    assert "Unfinished" in [each.value for each in app.subheader]
    assert "1 KiB of 2 KiB" in words(app)
    uploads.cancel(empty, upload.id, actor="ana")
    assert "Unfinished" not in [each.value for each in open_page("upload").subheader]


def test_an_unfinished_upload_can_be_discarded_from_the_list(empty: Context, open_page: OpenPage) -> None:
    upload = uploads.create(empty, model="half", files=[("a.pt", 2048)], actor="ana")
    kept = uploads.create(empty, model="other", files=[("a.pt", 2048)], actor="ana")
    app = open_page("upload")
    app.button(key=f"discard-{upload.id}").click().run()
    assert not app.exception
    assert uploads.get(empty, upload.id).state == "cancelled"
    assert uploads.get(empty, kept.id).state == "receiving"
    assert f"discard-{upload.id}" not in [each.key for each in app.button]


def test_fetching_from_a_folder(importing: Context, open_page: OpenPage, tmp_path: Path) -> None:
    app = open_page("upload")
    app.text_input(key="reference-place").set_value(str(tmp_path / "data" / "model.pt"))
    app.text_input(key="reference-model").set_value("mine")
    app.button(key="reference-fetch").click().run()
    made = uploads.recent(importing).items[0]
    assert (made.model_name, made.reference) == ("mine", str(tmp_path / "data" / "model.pt"))
    assert "waits to be fetched from" in words(app)
    assert app.button(key="upload-cancel")
    importing.engine.dispose()


def test_a_folder_that_is_not_allowed_names_the_setting(empty: Context, open_page: OpenPage) -> None:
    app = open_page("upload")
    app.text_input(key="reference-place").set_value("/etc/passwd")
    app.text_input(key="reference-model").set_value("mine")
    app.button(key="reference-fetch").click().run()
    assert "SIGNALBOX_IMPORT_ROOTS" in words(app)
    assert uploads.recent(empty).total == 0


def test_an_upload_by_reference_is_watched_not_sent(
    importing: Context, open_page: OpenPage, tmp_path: Path
) -> None:
    made = imports.create(importing, model="mine", reference=str(tmp_path / "data" / "model.pt"), actor="ana")
    app = open_page("upload", id=made.id)
    assert "waits to be fetched from" in words(app)
    assert made.model_name not in [each.value for each in app.text_input]
    importing.engine.dispose()
