"""How long one page of the versions list takes with 10,000 versions in the registry.

    python -m benchmarks.versions_page [VERSIONS]

Prints median and worst of 20 runs of each query in milliseconds; exits with 1 when a median is over 25.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from control_plane.config import Settings, prepare_home
from control_plane.registry import migrate
from control_plane.registry import session as sessions
from control_plane.registry.tables import Alias, Artifact, Model, Tag, Version, new_id
from control_plane.services import versions
from control_plane.services.context import Context, open_context

MODELS = 100
GOAL_MS = 25.0
RUNS = 20
QUERIES: dict[str, dict[str, Any]] = {
    "first page": {},
    "page 150": {"page": 150},
    "with archived": {"archived": True},
    "one model": {"model": "model-7"},
    "one format": {"format": "huggingface"},
    "one alias": {"alias": "champion"},
    "text in name": {"q": "model-42"},
    "text in tag": {"q": "team-3"},
    "start of digest": {"q": "00000000000000000000000000000000000000000000000000000000000012"},
    "nothing found": {"q": "no such thing"},
}


def fill(ctx: Context, count: int) -> None:
    """Write *count* versions of MODELS models, two tags each."""
    with sessions.write(ctx.engine) as session:
        models = [Model(id=new_id(), name=f"model-{n}", created_at=1.0) for n in range(MODELS)]
        session.add_all(models)
        session.flush()
        for number in range(count):
            model = models[number % MODELS]
            digest = f"sha256:{number:064x}"
            session.add(Artifact(digest=digest, size_bytes=number, files=[], created_at=float(number)))
            version = _version(model, number // MODELS + 1, digest, number)
            session.add(version)
            session.add_all(
                Tag(version_id=version.id, key=key, value=value)
                for key, value in (("stage", "trial"), ("owner", f"team-{number % 50}"))
            )
        session.flush()
        _add_aliases(session, models)


def _version(model: Model, number: int, digest: str, at: float) -> Version:
    return Version(
        id=new_id(),
        model_id=model.id,
        number=number,
        artifact_digest=digest,
        format="torchscript" if number % 10 else "huggingface",
        handler="tensor",
        signature={"inputs": [], "outputs": []},
        labels=[],
        details={"test_accuracy": 0.9},
        created_by="ana",
        created_at=float(at),
        archived_at=1.0 if number % 7 == 0 else None,
    )


def _add_aliases(session: Any, models: list[Model]) -> None:
    for model in models:
        version = session.query(Version).filter_by(model_id=model.id, number=1).one()
        session.add(Alias(model_id=model.id, name="champion", version_id=version.id))


def measure(ctx: Context, query: dict[str, Any]) -> tuple[float, float, int]:
    """(Median, worst) in milliseconds, and how many versions match."""
    times, total = [], 0
    for _ in range(RUNS):
        started = time.perf_counter()
        total = versions.search(ctx, **query).total
        times.append((time.perf_counter() - started) * 1000)
    return statistics.median(times), max(times), total


def main(count: int) -> int:
    """Run every query; 0 when each median is within the goal."""
    with tempfile.TemporaryDirectory() as home:
        settings = Settings(home=Path(home))
        prepare_home(settings)
        migrate.upgrade(settings.database)
        ctx = open_context(settings)
        fill(ctx, count)
        late = []
        for name, query in QUERIES.items():
            median, worst, total = measure(ctx, query)
            print(f"{name:16} {median:7.1f} ms median {worst:7.1f} ms worst   {total} of {count} versions")
            if median > GOAL_MS:
                late.append(name)
        ctx.engine.dispose()
    return 1 if late else 0


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000))
