"""The debugger in a real browser: its pages in both themes, and runs that a real worker makes."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from playwright.sync_api import Locator, Page, expect
from torch import nn

from control_plane.domain.debugging import ExampleSource
from control_plane.domain.views import Example
from control_plane.services import debugger, registration
from control_plane.services.context import Context
from tests.browser.conftest import OpenTab
from tests.fakes import checkpoints, dashboard, models, seeded, seeded_debugger
from tests.fakes.dashboard import Dashboard

pytestmark = pytest.mark.timeout(300)
START_MS = 90_000
EXAMPLE = 4
PLACE, SET_TO = 3, 4.5
"""Element of `act` that is edited, and what to."""
WRONG = "[[[[0.5, 0.5], [0.5, 0.5]]]]"


class Net(nn.Module):
    """A classifier of digits in three layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.first: nn.Module = nn.Linear(64, 16)
        self.act: nn.Module = nn.ReLU()
        self.second: nn.Module = nn.Linear(16, 12)
        self.gate: nn.Module = nn.Tanh()
        self.last: nn.Module = nn.Linear(12, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.last(self.gate(self.second(self.act(self.first(image.flatten(1))))))


class Int8Linear(nn.Module):
    """A layer with its weights in 8 bits."""

    def __init__(self, layer: nn.Linear, wrong: float = 1.0) -> None:
        super().__init__()
        weight = layer.weight.detach()
        scale = weight.abs().max() / 127
        self.register_buffer("weight", torch.round(weight / scale).to(torch.int8))
        self.register_buffer("bias", layer.bias.detach())
        self.scale = float(scale) * wrong

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight.float() * self.scale, self.bias)


class Logarithm(nn.Module):
    """Not a number for what is below zero."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.log(x)


def int8() -> Net:
    """The network in 8 bits, with a wrong scale in its second layer."""
    made = Net()
    made.first, made.last = Int8Linear(made.first), Int8Linear(made.last)  # type: ignore[arg-type]
    made.second = Int8Linear(made.second, wrong=1.6)  # type: ignore[arg-type]
    return made


def with_nan() -> Net:
    """The network with a logarithm where the hyperbolic tangent was."""
    made = Net()
    made.gate = Logarithm()
    return made


@dataclass(frozen=True)
class Debugger:
    """A dashboard with a worker; runs by name, those of the fakes and those that the worker makes."""

    running: Dashboard
    ids: dict[str, str]

    @property
    def url(self) -> str:
        return self.running.url

    def path(self, name: str, more: str = "") -> str:
        return f"/debugger?run={self.ids[name]}{more}"


def _register(ctx: Context, net: nn.Module) -> str:
    folder = models.save_torchscript(net.eval(), ctx.settings.uploads_dir / f"net{time.time_ns()}")
    images = [Example({"image": seeded.picture(at)}, str(at)) for at in range(8)]
    return registration.register(
        ctx,
        model="digits",
        files_dir=folder,
        format="torchscript",
        handler="tensor",
        signature=models.DIGITS,
        examples=images,
        actor="ana",
        program_accepted_by="ana",
        program_accepted_at=time.time(),
    )


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Debugger]:
    settings = dashboard.settings_for(tmp_path_factory.mktemp("debugger"))
    ctx = seeded.open_home(settings.home, web_port=settings.web_port, gateway_port=settings.gateway_port)
    for net in (Net(), int8(), with_nan()):
        _register(ctx, net)
    ids = seeded_debugger.fill(ctx, going=False)
    ids["many"] = seeded_debugger.many(ctx)
    example = ExampleSource(number=EXAMPLE)
    ids["real"] = debugger.start(ctx, "digits@1", example, actor="ana").id
    ids["real-nan"] = debugger.start(ctx, "digits@3", example, actor="ana").id
    ids["real-int8"] = debugger.start(ctx, "digits@1", example, against="digits@2", actor="ana").id
    with checkpoints.worker(ctx), dashboard.running(settings) as running:
        yield Debugger(running, ids)
    ctx.engine.dispose()


def _inspector(page: Page) -> Locator:
    return page.locator(".st-key-debugger-inspector")


def _row(page: Page, layer: str) -> Locator:
    return page.locator(f'tr[data-id="{layer}"]')


def _field(page: Page, label: str) -> Locator:
    return page.get_by_role("textbox", name=label, exact=True)


def _settle(page: Page) -> None:
    """Wait until Streamlit has drawn the page to its end."""
    expect(page.locator('[data-testid="stStatusWidget"]')).to_have_count(0, timeout=START_MS)


def test_every_state_without_errors_foreign_requests_or_overflow(seen: Debugger, open_tab: OpenTab) -> None:
    """Wide and light, narrow and dark, in turn."""
    tabs = (
        open_tab(seen.url, color_scheme="light"),
        open_tab(seen.url, color_scheme="dark", viewport={"width": 390, "height": 900}),
    )
    names = ("wrong", "compared", "edited", "unkept")
    views = [seen.path("compared", "&view=Stages"), seen.path("tokens", "&view=Tokens")]
    paths = ["/debugger?a=digits@1&b=digits@2", *map(seen.path, names), *views]
    for path, tab in zip(paths, itertools.cycle(tabs), strict=False):
        page = tab.open(path)
        _settle(page)
        expect(page.get_by_text("Something went wrong")).to_have_count(0)
        wide, there = page.evaluate(
            "(() => { const main = document.querySelector('[data-testid=stMain]');"
            " return [main.scrollWidth, main.clientWidth]; })()"
        )
        assert wide <= there + 1, path
    for tab in tabs:
        assert tab.errors == []
        assert tab.foreign == []


def test_a_step_through_many_layers_builds_no_table_again(seen: Debugger, open_tab: OpenTab) -> None:
    page = open_tab(seen.url).open(seen.path("many", "&layer=blocks.20.3"))
    expect(_row(page, "blocks.20.3")).to_have_attribute("aria-current", "true", timeout=START_MS)
    expect(_inspector(page)).to_contain_text("Layer 204 of 500")
    _row(page, "blocks.0.0").evaluate("row => { row.dataset.kept = 'yes'; }")
    page.locator("body").press("n")
    expect(_inspector(page)).to_contain_text("Layer 205 of 500")
    expect(_row(page, "blocks.20.4")).to_have_attribute("aria-current", "true")
    page.locator("body").press("p")
    expect(_inspector(page)).to_contain_text("Layer 204 of 500")
    expect(page).to_have_url(re.compile(r"layer=blocks\.20\.3"))
    page.get_by_placeholder("Find a layer by name or kind").fill("blocks.49.9")
    page.get_by_placeholder("Find a layer by name or kind").press("Enter")
    expect(_inspector(page)).to_contain_text("Layer 500 of 500")
    assert _row(page, "blocks.0.0").get_attribute("data-kept") == "yes"
    page.get_by_role("button", name="Share").click()
    address = page.locator(".st-key-debugger-share, [data-testid=stPopoverBody]").locator("code").first
    expect(address).to_have_text(f"{seen.url}{seen.path('many', '&layer=blocks.49.9')}", timeout=START_MS)
    page.goto(address.inner_text())
    expect(_inspector(page)).to_contain_text("Layer 500 of 500", timeout=START_MS)
    expect(_row(page, "blocks.49.9")).to_have_attribute("aria-current", "true")


def test_a_wrong_shape_is_stopped_at_its_stage(seen: Debugger, open_tab: OpenTab) -> None:
    tab = open_tab(seen.url)
    page = tab.open("/debugger?a=digits@1")
    page.get_by_text("JSON", exact=True).click()
    field = _field(page, "Input as JSON")
    expect(field).to_be_visible()
    field.fill(WRONG)
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.get_by_text("Stopped in inputs").first).to_be_visible(timeout=START_MS)
    expect(page.locator(".sb-problem").first).to_contain_text("must have shape [-1, 1, 8, 8]")
    expect(page.locator(".sb-step.failed")).to_contain_text("Inputs")
    expect(page.locator(".sb-step.next")).to_have_count(3)
    expect(page).to_have_url(re.compile("run="))
    assert tab.errors == []


def test_first_nan_finds_where_it_was_planted(seen: Debugger, open_tab: OpenTab) -> None:
    page = open_tab(seen.url).open(seen.path("real-nan"))
    button = page.get_by_role("button", name="First NaN or Inf", exact=True)
    expect(button).to_be_enabled(timeout=START_MS)
    button.click()
    expect(_inspector(page)).to_contain_text("aten::log", timeout=START_MS)
    expect(_inspector(page).locator(".sb-badge").first).to_contain_text("NaN")
    row = page.locator('tr[aria-current="true"]')
    expect(row).to_contain_text("aten::log")
    previous = row.locator("xpath=preceding-sibling::tr[1]")
    expect(previous.locator("td").nth(11)).to_have_text("0")
    page.get_by_role("button", name=re.compile("Show the first NaN or Inf")).click()
    expect(_field(page, "Element")).to_have_value(re.compile(r"^\[0, \d+\]$"))


def test_an_edited_value_changes_the_answer_as_computed_by_hand(seen: Debugger, open_tab: OpenTab) -> None:
    page = open_tab(seen.url).open(seen.path("real", "&layer=act"))
    expect(_inspector(page)).to_contain_text("ReLU", timeout=START_MS)
    _settle(page)
    _field(page, "Element").fill(f"[0, {PLACE}]")
    _field(page, "New value").fill(str(SET_TO))
    page.get_by_role("button", name="Set and run on").click()
    changed = page.locator(".st-key-debugger-changed")
    expect(changed).to_contain_text(f"act [0, {PLACE}] = {SET_TO}", timeout=START_MS)
    rows = changed.locator("tbody tr")
    expect(rows).to_have_count(10, timeout=START_MS)
    before, after = _by_hand()
    told = {cells[0]: cells[1:3] for row in rows.all() if (cells := row.locator("td").all_inner_texts())}
    for at in range(10):
        was, now = (float(text.replace("−", "-")) for text in told[f"logits[{at}]"])
        assert was == pytest.approx(before[at], rel=1e-3, abs=1e-4)
        assert now == pytest.approx(after[at], rel=1e-3, abs=1e-4)
    expect(_row(page, "act")).to_contain_text("edited")
    page.get_by_text("Open the run before").click()
    expect(page).to_have_url(re.compile(seen.ids["real"]), timeout=START_MS)
    expect(changed).to_have_count(0, timeout=START_MS)


def _by_hand() -> tuple[list[float], list[float]]:
    """The answer to the example, and the one with the element set."""
    net = Net().eval()
    image = torch.from_numpy(np.asarray([seeded.picture(EXAMPLE - 1)], dtype=np.float32))
    with torch.inference_mode():
        active = net.act(net.first(image.flatten(1)))
        edited = active.clone()
        edited[0, PLACE] = SET_TO
        before, after = (net.last(net.gate(net.second(each))) for each in (active, edited))
    return before[0].tolist(), after[0].tolist()


def test_int8_parts_from_fp32_where_the_fault_was_planted(
    seen: Debugger, open_tab: OpenTab, tmp_path: Path
) -> None:
    tab = open_tab(seen.url)
    page = tab.open(seen.path("real-int8"))
    button = page.get_by_role("button", name="First divergence")
    expect(button).to_be_enabled(timeout=START_MS)
    expect(page.locator(".st-key-debugger-comparison")).to_contain_text("They diverge at second")
    button.click()
    row = page.locator('tr[aria-current="true"]')
    expect(row).to_contain_text("diverges")
    expect(row).to_have_attribute("data-id", re.compile("^second"))
    expect(_inspector(page)).to_contain_text("Beside the other version")
    line = page.locator(".st-key-debugger-comparison .js-plotly-plot")
    expect(line.locator(".scatterlayer .js-line").first).to_be_visible(timeout=START_MS)
    _click_first_point(page)
    expect(_inspector(page)).to_contain_text("Layer 1 of", timeout=START_MS)
    page.get_by_role("radio", name="B · digits@2").click()
    expect(_inspector(page)).to_contain_text("in digits@2", timeout=START_MS)
    expect(page).to_have_url(re.compile("side=b"))
    _exports(page, seen.ids["real-int8"], tmp_path)
    assert tab.errors == []
    assert tab.foreign == []


def _click_first_point(page: Page) -> None:
    """A click on the chart where its first layer is drawn."""
    x, y = page.evaluate(
        "(() => { const chart = document.querySelector('.st-key-debugger-comparison .js-plotly-plot');"
        " chart.scrollIntoView({block: 'center'});"
        " const { xaxis, yaxis } = chart._fullLayout, box = chart.getBoundingClientRect();"
        " const [{ x, y }] = chart.data;"
        " return [box.left + xaxis._offset + xaxis.d2p(x[0]), box.top + yaxis._offset + yaxis.d2p(y[0])];"
        " })()"
    )
    page.mouse.move(x - 3, y)
    page.mouse.move(x, y)
    expect(page.locator(".st-key-debugger-comparison .hoverlayer .hovertext").first).to_be_visible()
    page.mouse.click(x, y)


def _exports(page: Page, run_id: str, folder: Path) -> None:
    """Both files are there, and say where the two part."""
    for label, ending in (("↓ JSON", "json"), ("↓ HTML", "html")):
        with page.expect_download() as download:
            page.get_by_role("link", name=label).click()
        download.value.save_as(folder / f"run.{ending}")
    written = json.loads((folder / "run.json").read_text("utf-8"))
    assert written["detail"]["view"]["id"] == run_id
    assert written["detail"]["comparison"]["divergence"]["rule"] == "falls"
    opened = page.context.browser.new_page() if page.context.browser else page
    asked: list[str] = []
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto((folder / "run.html").as_uri())
    expect(opened.get_by_text("They diverge at second").first).to_be_visible()
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    opened.close()


def test_a_file_is_given_as_input(seen: Debugger, open_tab: OpenTab, tmp_path: Path) -> None:
    file = tmp_path / "image.npy"
    np.save(file, np.full((1, 1, 8, 8), 0.25, dtype=np.float32))
    page = open_tab(seen.url).open("/debugger?a=digits@1&input=File")
    expect(page.get_by_text("No file was chosen")).to_be_visible()
    page.locator('input[type="file"]').set_input_files(file)
    expect(page.get_by_text("No file was chosen")).to_have_count(0, timeout=START_MS)
    button = page.get_by_role("button", name="Run", exact=True)
    expect(button).to_be_enabled()
    button.click()
    expect(page.locator(".sb-lead").first).to_contain_text("on .npy", timeout=START_MS)
