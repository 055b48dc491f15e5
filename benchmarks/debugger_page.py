"""`python -m benchmarks.debugger_page [--steps 40] [--out FILE]`: a step through a graph of 500 nodes.

A real web process on a home with a run of 500 layers, headless Chromium, the key N: from the key to the
moment when the inspector shows the next layer. What is shown is checked at each step; all figures are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Page, sync_playwright

from tests.fakes import dashboard, seeded, seeded_debugger

ROOT: Final = Path(__file__).parents[1]
LAYERS: Final = 500
GOAL_MS: Final = 300.0
NEXT: Final = """(said) => new Promise((done) => {
  const began = performance.now();
  const shown = () => [...document.querySelectorAll('[class*="st-key-debugger"]')]
    .some((each) => each.textContent.includes(said));
  const look = () => shown() ? done(performance.now() - began) : requestAnimationFrame(look);
  document.body.dispatchEvent(new KeyboardEvent('keydown', {key: 'n', code: 'KeyN', bubbles: true}));
  look();
})"""


def main() -> int:
    """Measure and print. Returns 0 where the median meets the goal."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    asked.add_argument("--steps", type=int, default=40)
    asked.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/debugger_page.json")
    given = asked.parse_args()
    with tempfile.TemporaryDirectory(prefix="signalbox-debugger-page-") as folder:
        settings = dashboard.settings_for(Path(folder))
        ctx = seeded.open_home(settings.home, web_port=settings.web_port, gateway_port=settings.gateway_port)
        seeded.fill(ctx)
        run = seeded_debugger.many(ctx, LAYERS)
        ctx.engine.dispose()
        with dashboard.running(settings) as shown:
            steps = walked(f"{shown.url}/debugger?run={run}&layer=blocks.10.0", given.steps)
    told = summary(steps)
    given.out.write_text(json.dumps(told, indent=1) + "\n")
    print({name: value for name, value in told.items() if name != "steps_ms"})
    return 0 if told["median_ms"] <= GOAL_MS else 1


def walked(url: str, count: int) -> list[float]:
    """Milliseconds of each of *count* steps, after three that warm up."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"] if os.geteuid() == 0 else []
        )
        page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
        page.goto(url)
        page.get_by_text(f"Layer 101 of {LAYERS}").first.wait_for(timeout=60_000)
        steps = [stepped(page, 102 + place) for place in range(count + 3)]
        browser.close()
    return steps[3:]


def stepped(page: Page, number: int) -> float:
    """Milliseconds until the inspector shows layer *number*, once the page rests."""
    page.wait_for_timeout(200)
    return float(page.evaluate(NEXT, f"Layer {number} of {LAYERS}"))


def summary(steps: list[float]) -> dict[str, Any]:
    """What is kept."""
    ordered = sorted(steps)
    return {
        "layers": LAYERS,
        "goal_ms": GOAL_MS,
        "median_ms": round(statistics.median(steps), 1),
        "p90_ms": round(ordered[int(0.9 * (len(ordered) - 1))], 1),
        "cores": os.cpu_count(),
        "load_1min": round(os.getloadavg()[0], 1),
        "at": time.strftime("%Y-%m-%d"),
        "steps_ms": [round(each, 1) for each in steps],
    }


if __name__ == "__main__":
    raise SystemExit(main())
