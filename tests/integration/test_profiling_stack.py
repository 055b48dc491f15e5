"""A profile of a live agent through the whole product: asked over REST while clients use the gateway."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from serving_agent.contract import profile
from tests.fakes.load import Load
from tests.fakes.stack import Stack
from tests.fakes.waiting import wait_until

pytestmark = pytest.mark.timeout(300)


def test_a_loaded_endpoint_is_profiled_without_a_failed_request(
    stack: Stack, digits: list[dict[str, Any]]
) -> None:
    before = stack.deploy("profiled", "digits@1", handler="tensor")
    base = f"{stack.settings.gateway_url}/e/profiled"
    body = {"input": [digits[0]["inputs"]["image"]]}

    def has_ten_scores(answer: dict[str, Any]) -> None:
        assert len(answer["predictions"][0]) == 10

    with Load(f"{base}/predict", body, has_ten_scores, threads=2) as traffic:
        asked = stack.api.post("/profiles", json={"endpoint": "profiled", "requests": 100, "seconds": 60.0})
        assert asked.status_code == 201, asked.text
        job = f"/jobs/{asked.json()['job_id']}"

        def ended() -> dict[str, Any] | None:
            seen: dict[str, Any] = stack.api.get(job).json()
            return seen if seen["state"] in {"succeeded", "failed", "cancelled"} else None

        done = wait_until(ended, timeout_s=90, what=lambda: stack.api.get(job).text)
        traffic.wait_for_more(10)
    assert done["state"] == "succeeded", done
    assert traffic.failures == []
    report = stack.api.get(f"/profiles/{asked.json()['id']}/report").json()
    assert (report["source"], report["key"]["requests"]) == ("agent", 100)
    assert [stage["name"] for stage in report["stages"]] == list(profile.STAGES)
    after = stack.endpoint("profiled")
    assert [agent["id"] for agent in after["agents"]] == [agent["id"] for agent in before["agents"]]
    refused = httpx.post(f"{base}{profile.ROUTE}", json={"requests": 1, "seconds": 1})
    assert refused.status_code == 404
