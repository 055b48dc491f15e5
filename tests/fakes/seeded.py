"""A registry with something in it: models, endpoints with agents in every phase, uploads, jobs and events.

Rows that services cannot write on their own (agents, running jobs) are written as the controller and the
worker would write them.
"""

from __future__ import annotations

import math
import random
import time
from dataclasses import asdict
from pathlib import Path

from control_plane.config import Settings, prepare_home
from control_plane.domain.views import Example, Reason
from control_plane.registry import session as sessions
from control_plane.registry.endpoints import spec_json, wanted_spec
from control_plane.registry.tables import Agent, Endpoint, Job, Lease, Upload, UploadedFile, new_id
from control_plane.services import endpoints, registration, versions
from control_plane.services.context import Context, open_context
from control_plane.telemetry import LocalStore, series
from control_plane.telemetry.samples import Key, Sample, SampleKind, labels_of
from serving_agent.contract.metric_names import DURATION_BUCKETS_S
from serving_agent.contract.signature import Signature, TensorSpec
from tests.fakes import registry

DIGITS = Signature((TensorSpec("image", "FP32", (-1, 1, 8, 8)),), (TensorSpec("logits", "FP32", (-1, 10)),))
TEXT = Signature(
    (TensorSpec("text", "BYTES", (-1,)),),
    (TensorSpec("probabilities", "FP32", (-1, 2)), TensorSpec("label", "BYTES", (-1,))),
)
TIMINGS = {"start": 0.04, "import": 1.62, "load": 0.08, "warm": 0.03, "gateway": 0.21}


def open_home(home: Path, **settings: object) -> Context:
    """An empty, migrated registry in *home*."""
    made = Settings.model_validate({"home": home, **settings})
    prepare_home(made)
    registry.lay_out(made)
    return open_context(made)


def picture(seed: int) -> list[list[list[float]]]:
    """Something like a handwritten digit: one plane of 8 rows of 8 values in [0, 1]."""
    draw = random.Random(seed)
    plane = [[0.0] * 8 for _ in range(8)]
    x, y = draw.randrange(2, 6), 0
    for _ in range(26):
        plane[y][x] = min(1.0, plane[y][x] + 0.5 + draw.random() / 2)
        x = min(6, max(1, x + draw.choice((-1, 0, 0, 1))))
        y = min(7, y + draw.choice((0, 0, 1)))
    return [[[round(value, 4) for value in row] for row in plane]]


def add_version(ctx: Context, model: str, *, content: bytes = b"weights", examples: int = 0) -> str:
    """Register one more version of *model*; its bytes are *content*."""
    folder = ctx.settings.uploads_dir / new_id()
    folder.mkdir(parents=True)
    (folder / "model.pt").write_bytes(content)
    return registration.register(
        ctx,
        model=model,
        files_dir=folder,
        format="torchscript",
        handler="image-classification",
        signature=DIGITS,
        labels=[str(digit) for digit in range(10)],
        details={
            "test_accuracy": 0.9722,
            "parameters": 11210,
            "train_s": 3.4,
            "dataset": "scikit-learn digits",
        },
        examples=[Example({"image": picture(i)}, str(i % 10)) for i in range(examples)],
        actor="ana",
        program_accepted_by="ana",
        program_accepted_at=time.time(),
    )


def deploy(ctx: Context, name: str, ref: str, *, phases: tuple[str, ...], replicas: int = 1) -> None:
    """Deploy *ref* and add one agent a phase, as the controller would have it by now."""
    endpoints.deploy(ctx, name, ref, actor="ana", replicas=replicas)
    with sessions.write(ctx.engine) as session:
        row = session.query(Endpoint).filter_by(name=name).one()
        if "ready" in phases:
            row.serving_version_id = row.version_id
        for i, phase in enumerate(phases):
            session.add(_agent(row, phase, i))


def _agent(row: Endpoint, phase: str, index: int) -> Agent:
    keys = {"starting": 0, "loading": 2, "warming": 3}.get(phase, 5 if phase == "ready" else 2)
    failed = phase == "failed"
    now = time.time()
    return Agent(
        id=f"{row.id[:4]}{index}",
        endpoint_id=row.id,
        version_id=row.version_id,
        spec=spec_json(wanted_spec(row)),
        phase=phase,
        pid=4000 + index,
        device="cpu",
        timings_s=dict(list(TIMINGS.items())[:keys]),
        reason="the model needs more memory than the limit of 256 MiB" if failed else None,
        exit_code=3 if failed else None,
        log_tail=["loading model.pt", "RuntimeError: not enough memory: you tried to allocate 512 MiB"]
        if failed
        else None,
        created_at=now - 300 - index if phase == "ready" else now - 3,
        ready_at=now - 298 if phase == "ready" else None,
        health_check={"state": "healthy", "since": now - 297} if phase == "ready" else None,
        effect={"plain_s": 0.0051, "optimized_s": 0.003, "largest_difference": 0.003}
        if phase == "ready"
        else None,
        ended_at=now - 1 if failed else None,
    )


def fill(ctx: Context) -> None:
    """Everything the pages can show."""
    first = add_version(ctx, "digits", content=b"first" * 9000, examples=100)
    second = add_version(ctx, "digits", content=b"second" * 30000, examples=100)
    add_version(ctx, "ranker", content=b"ranker" * 900000)
    versions.set_alias(ctx, "digits", "champion", 1, actor="ana")
    versions.set_tag(ctx, second, "stage", "candidate", actor="bo")
    deploy(ctx, "digits", first, phases=("ready", "ready"), replicas=2)
    deploy(ctx, "digits-next", second, phases=("loading",))
    deploy(ctx, "ranker", "ranker@1", phases=("failed",))
    measure(ctx, "digits", "digits@1")
    with sessions.write(ctx.engine) as session:
        now = time.time()
        session.add(Lease(name="controller", holder="test", token=1, expires_at=now + 3600))
        session.add(_job("example", "digits", "running", now, progress=0.64, stage="train digits@2"))
        session.add(_job("check", "ranker", "succeeded", now - 60, progress=1.0, stage="registered"))
        session.add(_upload("vision", "rejected", now))
        session.add(_upload("ocr", "needs input", now - 20))


def measure(ctx: Context, endpoint: str, version: str, *, minutes: float = 4.0) -> None:
    """Traffic of one endpoint over the last *minutes*, as the collector would have stored it."""
    store, now, draw = LocalStore(ctx.settings.metrics_path), time.time(), random.Random(7)
    where = {"endpoint": endpoint, "version": version}
    for tick in range(int(minutes * 30)):
        wave = math.sin(tick / 9)
        served = Key(
            series.GATEWAY_REQUESTS, labels_of({**where, "code": "200", "grpc": ""}), SampleKind.COUNTER
        )
        latency = Key(series.GATEWAY_LATENCY, labels_of(where), SampleKind.HISTOGRAM, DURATION_BUCKETS_S)
        count = 180 + round(40 * wave) + draw.randrange(25)
        store.write(
            now - minutes * 60 + 2 * (tick + 1),
            [
                Sample(served, count, 2.0),
                Sample(latency, count, 2.0, _spread(count, 4 + round(wave), draw)),
                Sample(Key(series.AGENT_CPU, labels_of({**where, "agent": "a1b2"})), 38 + 9 * wave, 2.0),
                Sample(
                    Key(series.AGENT_MEMORY, labels_of({**where, "agent": "a1b2"})), 3.1e8 + 4e6 * wave, 2.0
                ),
                *_served(where, count, wave),
                Sample(Key(series.HOST_CPU), 41 + 12 * wave + draw.random(), 2.0),
                Sample(Key(series.HOST_MEMORY), 5.1e9 + 1e8 * wave, 2.0),
                Sample(Key(series.GPU_COUNT), 0, 2.0),
            ],
        )


def _served(where: dict[str, str], requests: int, wave: float) -> list[Sample]:
    """What one agent tells of its batches, its cache and what it refused."""
    own = {**where, "agent": "a1b2"}
    counted = {
        (series.AGENT_BATCHES, "code", "rows"): requests,
        (series.AGENT_BATCHES, "code", "batches"): round(requests / (6 + 2 * wave)),
        (series.AGENT_CACHE, "code", "hit"): round(requests * (0.4 + 0.1 * wave)),
        (series.AGENT_CACHE, "code", "miss"): round(requests * (0.6 - 0.1 * wave)),
        (series.AGENT_REJECTED, "reason", "queue_full"): max(0, round(20 * wave)),
        (series.AGENT_REJECTED, "reason", "deadline"): max(0, round(5 * wave - 2)),
    }
    return [
        Sample(Key(name, labels_of({**own, label: word}), SampleKind.COUNTER), value, 2.0)
        for (name, label, word), value in counted.items()
    ]


def _spread(count: int, centre: int, draw: random.Random) -> tuple[int, ...]:
    """*count* observations around one bucket, with a tail."""
    buckets = [0] * (len(DURATION_BUCKETS_S) + 1)
    for _ in range(count):
        buckets[min(len(DURATION_BUCKETS_S), max(0, centre + int(draw.expovariate(0.9))))] += 1
    return tuple(buckets)


def _job(kind: str, subject: str, state: str, at: float, *, progress: float, stage: str) -> Job:
    return Job(
        kind=kind,
        subject=subject,
        params={},
        state=state,
        stage=stage,
        progress=progress,
        attempt=1,
        created_by="ana",
        created_at=at - 6,
        started_at=at - 5,
        finished_at=at - 1 if state == "succeeded" else None,
    )


def _upload(model: str, state: str, at: float) -> Upload:
    rejected = state == "rejected"
    path = "model.bin" if rejected else "model.pt"
    asked = {
        "format": "torchscript",
        "program": True,
        "signature": None,
        "needs": ["acceptance", "signature"],
    }
    reason = Reason("pickle", f"{path} is a pickle, which runs code", "Save it as TorchScript.", path)
    return Upload(
        model_name=model,
        state=state,
        files=[
            UploadedFile(position=0, path=path, size_bytes=4096, received_bytes=4096, sha256="0" * 64),
        ],
        details={},
        labels=[],
        found={} if rejected else asked,
        reason=asdict(reason) if rejected else None,
        created_by="bo",
        created_at=at,
        updated_at=at,
    )
