"""The example of the deployments page works as printed, and its table names the real keys."""

from __future__ import annotations

import re
from pathlib import Path

from control_plane.services import declarative, deployments_file, endpoints
from tests.fakes.registry import open_home, register

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "deployments.md").read_text()


def test_the_example_is_applied_as_printed(tmp_path: Path) -> None:
    example = re.search(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    assert example is not None
    ctx = open_home(tmp_path)
    register(ctx)
    register(ctx)
    assert len(declarative.apply(ctx, example[1], actor="ana")) == 3
    assert declarative.apply(ctx, example[1], actor="ana") == ()
    served = {view.name: (view.version_ref, view.goal, view.handler) for view in endpoints.list_all(ctx)}
    assert served == {
        "digits": ("digits@2", "running", "image-classification"),
        "digits-old": ("digits@1", "stopped", "tensor"),
    }
    ctx.engine.dispose()


def test_the_table_names_every_key() -> None:
    keys = set(re.findall(r"^\| `(\w+)` \|", PAGE, flags=re.MULTILINE))
    assert keys == {*deployments_file._DEPLOYMENT, *deployments_file._MODEL}
