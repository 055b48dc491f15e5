"""The three targets: a real Triton, our agent, and our agent behind the gateway."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from benchmarks.conformance import models, rotation, triton
from benchmarks.conformance.clients import Protocol
from benchmarks.conformance.matrix import Addresses
from control_plane.gateway.traffic_plan import Replica, TrafficPlan
from serving_agent.batch import is_batchable
from serving_agent.contract.manifest import Manifest
from serving_agent.contract.options import Batching
from tests.fakes.agents import RunningAgent, make_manifest, start_agent
from tests.fakes.envoy import RunningEnvoy, plan, running_envoy
from tests.fakes.nursery import Nursery

TRITON: Final = "triton"
AGENT: Final = "agent"
GATEWAY: Final = "gateway"
DIGEST: Final = "sha256:" + "cd" * 32
_TRITON_MODEL: Final = Path(__file__).with_name("triton_model.py")


@contextlib.contextmanager
def triton_server(folder: Path) -> Iterator[Addresses]:
    """Run a real Triton with both models; its files go into *folder*."""
    served = [
        triton.Served(
            name,
            signature,
            _TRITON_MODEL,
            models.save(name, folder / "programs" / name),
            max_batch_size=Batching().max_rows if is_batchable(signature) else 0,
        )
        for name, signature in models.SIGNATURES.items()
    ]
    repository = triton.write_repository(folder / "repository", served)
    folder.mkdir(parents=True, exist_ok=True)
    with triton.running(repository, list(models.SIGNATURES), folder) as found:
        yield _everywhere(found.rest, found.grpc)


@contextlib.contextmanager
def agents(
    folder: Path, names: Iterable[str] = models.SIGNATURES, nursery: Nursery | None = None
) -> Iterator[dict[str, RunningAgent]]:
    """Run one of our agents for each of the models *names*; their files go into *folder*.

    nursery: where to fork them, None for starts of their own.
    """
    with contextlib.ExitStack() as running:
        manifests = {name: manifest(name, folder / name) for name in names}
        started = {
            name: running.enter_context(start_agent(each, folder / name, wait=False, nursery=nursery))
            for name, each in manifests.items()
        }
        for agent in started.values():
            agent.wait_phase("ready")
        yield started


def manifest(model: str, folder: Path) -> Manifest:
    """Return what an agent of *model* is told; nothing differs from what an endpoint gets by default."""
    handler = rotation.HANDLER if model == models.TYPES else "tensor"
    return make_manifest(
        models.save(model, folder / "artifact").parent,
        models.SIGNATURES[model],
        agent_id=model,
        endpoint=model,
        model=model,
        version=models.VERSION,
        digest=DIGEST,
        handler=handler,
        allowed_handlers=(rotation.HANDLER,),
    )


def agent_addresses(running: Mapping[str, RunningAgent]) -> Addresses:
    """Return where the agents themselves answer."""
    found: dict[tuple[str, Protocol], str] = {}
    for name, agent in running.items():
        found |= _of_model(name, agent.manifest.rest_address, agent.manifest.grpc_address)
    return found


@contextlib.contextmanager
def gateway(running: Mapping[str, RunningAgent], home: Path) -> Iterator[Addresses]:
    """Run Envoy before the agents; its files go into *home*, whose path must be short."""
    with running_envoy(home) as envoy:
        envoy.apply(*(_plan(name, agent) for name, agent in running.items()))
        yield gateway_addresses(envoy)


def gateway_addresses(envoy: RunningEnvoy) -> Addresses:
    """Return where the gateway answers: one port for every model and protocol."""
    address = f"127.0.0.1:{envoy.settings.gateway_port}"
    return _everywhere(address, address)


def _plan(name: str, agent: RunningAgent) -> TrafficPlan:
    manifest = agent.manifest
    replica = Replica(manifest.agent_id, manifest.rest_address, manifest.grpc_address)
    return plan(name, v1=(1.0, [replica]))


def _everywhere(rest: str, grpc: str) -> Addresses:
    found: dict[tuple[str, Protocol], str] = {}
    for name in models.SIGNATURES:
        found |= _of_model(name, rest, grpc)
    return found


def _of_model(name: str, rest: str, grpc: str) -> dict[tuple[str, Protocol], str]:
    return {(name, "http"): rest, (name, "raw"): rest, (name, "grpc"): grpc}
