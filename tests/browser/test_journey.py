"""The journey of somebody new: from an empty home to a drawn prediction and a chart that moves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenTab
from tests.fakes import models
from tests.fakes import stack as stacks
from tests.fakes.load import Load
from tests.fakes.stack import Stack

pytestmark = pytest.mark.timeout(900)
START_MS = 90_000


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stacks.running(stacks.settings_for(tmp_path_factory.mktemp("fresh"))) as running:
        yield running


def test_from_upload_to_a_drawn_prediction_and_a_moving_chart(
    fresh: Stack, open_tab: OpenTab, tmp_path: Path
) -> None:
    tab = open_tab(fresh.settings.web_url)
    page = tab.open("/")
    expect(page.get_by_text("Three steps to a prediction")).to_be_visible()
    _upload(tab.open("/upload"), models.save_torchscript(models.digits_model(), tmp_path) / "model.pt")
    _deploy(page)
    _play(page, fresh.settings.web_url)
    _watch(tab.open("/live?endpoint=mine&range=5m"), fresh)
    assert tab.foreign == []
    assert tab.errors == []


def _upload(page: Page, file: Path) -> None:
    page.locator("#file").set_input_files(file)
    page.get_by_label("Model name").fill("mine")
    page.get_by_role("button", name="Upload", exact=True).click()
    expect(page.get_by_text("This file is a program")).to_be_visible(timeout=START_MS)
    _settle(page)
    page.get_by_text("Run this program", exact=True).click()
    expect(page.get_by_role("button", name="Continue")).to_be_enabled()
    page.get_by_label("Shape").fill("-1, 1, 8, 8")
    page.get_by_label("Shape").press("Enter")
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_text("Deploy mine@1")).to_be_visible(timeout=START_MS)


def _settle(page: Page) -> None:
    """Wait until Streamlit has drawn the page to its end."""
    expect(page.locator('[data-testid="stStatusWidget"]')).to_have_count(0)


def _deploy(page: Page) -> None:
    page.get_by_text("Deploy mine@1").click()
    page.get_by_role("button", name="Deploy", exact=True).click()
    expect(page.get_by_text("1 of 1 agent ready").first).to_be_visible(timeout=START_MS)


def _play(page: Page, url: str) -> None:
    page.goto(f"{url}/endpoints?name=mine&tab=Playground")
    page.get_by_role("button", name="Run").click()
    expect(page.locator(".st-key-playground-output")).to_contain_text("mine@1", timeout=START_MS)
    expect(page.locator(".sb-bars")).to_be_visible()


def _watch(page: Page, stack: Stack) -> None:
    def answered(answer: dict[str, Any]) -> None:
        assert len(answer["predictions"]) == 1

    body = {"input": torch.zeros(1, 1, 8, 8).tolist()}
    with Load(f"{stack.settings.gateway_url}/e/mine/predict", body, answered, threads=1) as load:
        line = page.locator(".js-plotly-plot .scatterlayer .js-line").first
        expect(line).to_be_visible(timeout=START_MS)
        before = line.get_attribute("d")
        expect(line).not_to_have_attribute("d", re.compile(re.escape(str(before)) + "$"), timeout=START_MS)
    assert load.failures == []
