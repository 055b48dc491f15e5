"""Serving options through the whole control plane: goal, event, file, manifest, agents, what they report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from alembic import command
from sqlalchemy import text

from control_plane.domain.endpoint import UNCHECKED
from control_plane.domain.views import Example
from control_plane.errors import InvalidInputError
from control_plane.platforms import local
from control_plane.registry import migrate, session
from control_plane.registry.endpoints import health_check, spec_of, wanted_spec
from control_plane.registry.tables import Agent
from control_plane.services import (
    declarative,
    deployments_export,
    endpoints,
    events,
    registration,
    versions,
)
from control_plane.services.context import Context
from serving_agent.contract import manifest as manifests
from serving_agent.contract.options import Batching, Cache, ServingOptions
from serving_agent.contract.status import CheckStatus, OptionsEffect
from tests.fakes.api_server import serving
from tests.fakes.control import Control, open_control
from tests.fakes.models import SCALAR
from tests.fakes.registry import open_home, register
from tests.fakes.waiting import wait_until

CHANGE: dict[str, Any] = {"batching": {"max_rows": 64, "buckets": [1, 8]}, "cache": {"max_bytes": 2**20}}
CHANGED = ServingOptions(batching=Batching(max_rows=64, buckets=(1, 8)), cache=Cache(max_bytes=2**20))


@pytest.fixture
def ctx(tmp_path: Path) -> Iterator[Context]:
    context = open_home(tmp_path / "home", gateway_port=1)
    register(context)
    yield context
    context.engine.dispose()


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    made = open_control(tmp_path / "home")
    yield made
    made.ctx.engine.dispose()


def test_options_are_kept_and_the_event_says_what_changed(ctx: Context) -> None:
    endpoints.deploy(ctx, "digits", "digits@1", actor="ana", options={"check_interval_s": 5})
    view = endpoints.deploy(ctx, "digits", "digits@1", actor="bo", options=CHANGE)
    assert view.options == msgspec.structs.replace(CHANGED, check_interval_s=5.0)
    assert (
        endpoints.deploy(ctx, "digits", "digits@1", actor="bo", options=CHANGE).revision == view.revision == 2
    )
    second, first = endpoints.history(ctx, "digits").items
    assert first.message == "ana deployed digits@1 to digits with check_interval_s 5"
    assert second.message == (
        "bo deployed digits@1 to digits with batching.max_rows 64, batching.buckets 1, 8, "
        "cache.max_bytes 1048576"
    )
    assert second.details["changed"]["batching.max_rows"] == [32, 64]


def test_a_deleted_endpoint_comes_back_with_the_usual_options(ctx: Context) -> None:
    endpoints.deploy(ctx, "digits", "digits@1", actor="ana", options=CHANGE)
    endpoints.delete(ctx, "digits", actor="ana")
    assert endpoints.deploy(ctx, "digits", "digits@1", actor="ana").options == ServingOptions()


def test_unusable_options_leave_everything_as_it_is(ctx: Context) -> None:
    endpoints.deploy(ctx, "digits", "digits@1", actor="ana")
    with pytest.raises(InvalidInputError, match="buckets must be ascending"):
        endpoints.deploy(ctx, "digits", "digits@1", actor="ana", options={"batching": {"buckets": [64]}})
    with pytest.raises(InvalidInputError, match="does not apply to TorchScript"):
        endpoints.deploy(ctx, "digits", "digits@1", actor="ana", options={"execution": {"compile": True}})
    assert endpoints.get(ctx, "digits").revision == 1


def test_options_of_torch_are_refused_where_another_engine_runs_the_model(
    ctx: Context, tmp_path: Path
) -> None:
    (tmp_path / "graph").mkdir()
    (tmp_path / "graph" / "model.onnx").write_bytes(b"graph")
    ref = registration.register(
        ctx, model="graph", files_dir=tmp_path / "graph", format="onnx", handler="tensor",
        signature=SCALAR, actor="ana",
    )  # fmt: skip
    with pytest.raises(InvalidInputError, match="graph@1 is not run by torch"):
        endpoints.deploy(ctx, "graph", ref, actor="ana", options={"execution": {"autocast": "bf16"}})
    with pytest.raises(InvalidInputError, match=r"without tokenizer\.json or tokenizer_config"):
        endpoints.deploy(ctx, "graph", ref, actor="ana", handler="embedding")
    assert endpoints.deploy(ctx, "graph", ref, actor="ana").handler == "tensor"


def test_options_over_rest(ctx: Context) -> None:
    with (
        serving(ctx) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", trust_env=False) as api,
    ):
        answer = api.put("/endpoints/digits", json={"version": "digits@1", "options": CHANGE})
        assert answer.status_code == 200, answer.text
        assert answer.json()["options"]["batching"]["buckets"] == [1, 8]
        lifted = {"version": "digits@1", "options": {"batching": {"buckets": None}}}
        assert api.put("/endpoints/digits", json=lifted).json()["options"]["batching"] == {
            "max_rows": 64, "max_delay_ms": 0.0, "buckets": [], "adaptive": False,
        }  # fmt: skip
        for options, says in (
            ({"batching": {"max_rows": 0}}, "options.batching.max_rows: Input should be greater than or"),
            ({"batching": {"max_rows": "8"}}, "options.batching.max_rows: Input should be a valid integer"),
            ({"batching": {"rows": 8}}, "options.batching.rows: Extra inputs are not permitted"),
            (
                {"execution": {"autocast": "fp8"}},
                "options.execution.autocast: Input should be 'off' or 'bf16'",
            ),
            ({"batching": {"buckets": [8, 1]}}, "options.batching: buckets must be ascending sizes"),
            ({"check_interval_s": 0.5}, "options.check_interval_s must be 0, or from 1 to 86400, not 0.5"),
        ):
            refused = api.put("/endpoints/digits", json={"version": "digits@1", "options": options})
            assert refused.status_code == 400, refused.text
            assert refused.json()["error"]["message"].startswith(says)
        exported = api.get("/deployments").json()["document"]
        assert api.post("/apply", json={"document": exported}).json()["changes"] == []


def test_an_exported_file_changes_nothing_and_brings_everything_back(ctx: Context) -> None:
    register(ctx)
    versions.set_alias(ctx, "digits", "champion", 2, actor="ana")
    everything = {
        **CHANGE, "execution": {"autocast": "bf16", "channels_last": True}, "max_concurrency": 9,
    }  # fmt: skip
    endpoints.deploy(ctx, "a", "digits@1", actor="ana", replicas=3, memory_bytes=2**30, options=everything)
    endpoints.deploy(ctx, "b", "digits@2", actor="ana")
    endpoints.stop(ctx, "b", actor="ana")
    endpoints.deploy(ctx, "gone", "digits@2", actor="ana")
    endpoints.delete(ctx, "gone", actor="ana")
    before = endpoints.list_all(ctx)
    exported = deployments_export.export(ctx)
    assert declarative.apply(ctx, exported, actor="bo") == ()
    other = (
        "deployments:\n- endpoint: a\n  version: digits@2\n"
        "  options: {batching: {max_rows: 16}, max_concurrency: 1}\n"
    )
    with pytest.raises(InvalidInputError, match=r"line 2: options\.batching: buckets"):
        declarative.apply(ctx, other.replace("16", "4"), actor="bo")
    (change,) = declarative.apply(ctx, other, actor="bo")
    assert change.sentence == (
        "change a: version digits@1 → digits@2, batching.max_rows 64 → 16, max_concurrency 9 → 1"
    )
    assert declarative.apply(ctx, exported, actor="bo")
    after = endpoints.list_all(ctx)
    assert [(v.name, v.version_ref, v.goal, v.replicas, v.memory_bytes, v.options) for v in after] == [
        (v.name, v.version_ref, v.goal, v.replicas, v.memory_bytes, v.options) for v in before
    ]


def test_agents_are_told_and_a_change_makes_new_ones(control: Control) -> None:
    endpoints.deploy(control.ctx, "digits", "digits@1", actor="ana", options=CHANGE)
    control.run()
    (first,) = control.platform.agents.values()
    assert first.manifest.options == CHANGED
    assert first.manifest.otlp_endpoint is None
    assert first.examples is None
    endpoints.deploy(control.ctx, "digits", "digits@1", actor="ana", options={"max_concurrency": 7})
    control.run(20)
    (second,) = control.platform.agents.values()
    assert second.manifest.agent_id != first.manifest.agent_id
    assert second.manifest.options == msgspec.structs.replace(CHANGED, max_concurrency=7)
    control.platform.end(second.manifest.agent_id, -9)
    control.run()
    assert [each.manifest.options.max_concurrency for each in control.platform.agents.values()] == [7]
    assert endpoints.get(control.ctx, "digits").health == "ready"


def test_traces_and_example_inputs_reach_the_agent(tmp_path: Path) -> None:
    context = open_home(tmp_path / "home", otlp_endpoint="http://127.0.0.1:4318")
    register(context, examples=[Example({"image": [[[0.5] * 8] * 8]}, "3"), Example({"image": []})])
    register(context, content=b"x", examples=[Example({"picture": [1.0]})])
    control = Control(context)
    control.deploy("digits", "digits@1")
    control.deploy("other", "digits@2")
    control.run()
    told = {agent.manifest.endpoint: agent for agent in control.platform.agents.values()}
    assert told["digits"].manifest.otlp_endpoint == "http://127.0.0.1:4318"
    assert told["digits"].examples == {"image": [[[[0.5] * 8] * 8]]}
    assert told["other"].examples is None, "its input has another name than the signature's"
    context.engine.dispose()


def test_what_agents_report_is_shown_and_written_once(control: Control) -> None:
    control.deploy("digits", "digits@1", replicas=2)
    control.run()
    one, _ = control.platform.agents.values()
    one.effect = OptionsEffect(plain_s=0.005, optimized_s=0.003, largest_difference=0.003)
    for failures in range(1, 4):
        one.check = CheckStatus(
            state="unhealthy", at=control.clock.now, failures=failures, last_error="NaN", last_error_at=5.0
        )
        control.run(2)
        expected = "degraded" if failures == 3 else "ready"
        assert endpoints.get(control.ctx, "digits").health == expected
    view = endpoints.get(control.ctx, "digits")
    assert view.health == "degraded"
    assert f"agent {one.manifest.agent_id} fails its test inference: NaN" in view.sentence
    seen = next(agent for agent in view.agents if agent.id == one.manifest.agent_id)
    assert (seen.check.state, seen.check.last_error, seen.check.last_error_at) == ("unhealthy", "NaN", 5.0)
    assert seen.effect == one.effect
    one.check = CheckStatus(state="healthy", at=control.clock.now, last_error="NaN", last_error_at=9.0)
    control.run(2)
    assert endpoints.get(control.ctx, "digits").health == "ready"
    said = [each.action for each in events.search(control.ctx, actor="controller").items]
    assert said[:2] == ["agent.healthy", "agent.unhealthy"]
    assert said.count("agent.healthy") == said.count("agent.unhealthy") == 1


def test_a_model_that_fails_every_other_test_writes_no_flood_of_events(control: Control) -> None:
    control.deploy("digits", "digits@1")
    control.run()
    (agent,) = control.platform.agents.values()
    before = len(events.search(control.ctx, actor="controller").items)
    for number in range(20):
        failed = number % 2
        agent.check = CheckStatus(
            state="unhealthy" if failed else "healthy", failures=failed, last_error=f"error {number}"
        )
        control.run(1, pause_s=15.0)
        assert endpoints.get(control.ctx, "digits").health == "ready"
    assert len(events.search(control.ctx, actor="controller").items) == before


def test_an_agent_that_stays_unhealthy_is_replaced_and_says_why(control: Control) -> None:
    control.deploy("digits", "digits@1")
    control.run()
    (sick,) = control.platform.agents.values()
    sick.check = CheckStatus(state="unhealthy", failures=3, last_error="output 'logits' holds NaN")
    control.run(20, pause_s=5.0)
    (well,) = control.platform.agents.values()
    assert well is not sick
    failed = next(agent for agent in control.agents() if agent.id == sick.manifest.agent_id)
    assert failed.phase == "failed"
    assert (failed.reason or "").endswith("output 'logits' holds NaN")
    assert control.gateway.weights == {"digits": {"digits@1": 1.0}}


def test_example_inputs_lie_beside_the_manifest(tmp_path: Path) -> None:
    context = open_home(tmp_path / "home")
    platform = local.create(context.settings)
    register(context, examples=[Example({"image": [[[0.5] * 8] * 8]})])
    control = Control(context)
    control.deploy("digits", "digits@1")
    control.run(1)
    (told,) = control.platform.agents.values()
    folder = context.settings.agents_dir / told.manifest.agent_id
    try:
        platform.start(told.manifest, told.examples)
        written = manifests.read(folder / "manifest.json")
        assert written.examples == folder / "examples.json"
        assert msgspec.json.decode(written.examples.read_bytes()) == {"image": [[[[0.5] * 8] * 8]]}
    finally:
        platform.kill(told.manifest.agent_id)
    wait_until(lambda: not platform.running(), timeout_s=20, what=lambda: str(platform.running()))
    platform.forget(told.manifest.agent_id)
    assert not folder.exists()
    context.engine.dispose()


OLD_ROWS: dict[str, dict[str, Any]] = {
    "models": {"id": "m", "name": "digits", "description": "", "last_number": 1, "created_at": 1},
    "artifacts": {"digest": "s", "size_bytes": 1, "files": "[]", "created_at": 1},
    "versions": {
        "id": "v", "model_id": "m", "number": 1, "artifact_digest": "s", "format": "torchscript",
        "handler": "tensor", "signature": "{}", "labels": "[]", "details": "{}", "created_by": "ana",
        "created_at": 1,
    },
    "endpoints": {
        "id": "e", "name": "digits", "goal": "running", "version_id": "v", "replicas": 1, "handler": "tensor",
        "device": "cpu", "threads": 1, "restart": 0, "revision": 1, "created_by": "ana", "created_at": 1,
        "updated_at": 1,
    },
    "agents": {
        "id": "x", "endpoint_id": "e", "version_id": "v", "phase": "ready", "timings_s": "{}",
        "created_at": 1,
        "spec": '{"version_id": "v", "version_ref": "digits@1", "handler": "tensor", "device": "cpu", '
        '"threads": 1, "memory_bytes": null, "restart": 0}',
    },
}  # fmt: skip
"""One row a table as revision 0001 has them."""


def test_a_registry_of_before_options_goes_on(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/old.db"
    with migrate._connected(url) as connection:
        command.upgrade(migrate._config(connection), "0001")
        for table, row in OLD_ROWS.items():
            places = ", ".join(f":{name}" for name in row)
            connection.execute(text(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({places})"), row)
    migrate.upgrade(url)
    assert migrate.check(url) == ()
    engine = session.open_engine(url)
    with session.read(engine) as db:
        agent = db.get_one(Agent, "x")
        assert spec_of(agent) == wanted_spec(agent.endpoint), "no agent is replaced by the upgrade"
        assert spec_of(agent).options == ServingOptions()
        assert health_check(agent) == UNCHECKED
    engine.dispose()
