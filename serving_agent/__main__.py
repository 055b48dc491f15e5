"""`python -m serving_agent --manifest FILE`: serve one version of one model until told to stop.

Exit codes: 0 ended on SIGTERM or SIGINT, 2 wrong usage or manifest, 3 the model could not be started.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import sys
from pathlib import Path
from typing import Final

import msgspec

from serving_agent import config, log, scratch
from serving_agent.contract import manifest as manifests
from serving_agent.contract.manifest import Manifest
from serving_agent.errors import StartError

logger = logging.getLogger("serving_agent")

EXIT_USAGE: Final = 2
PRIVATE_UMASK: Final = 0o077
"""Socket files and the failure file are the owner's alone from the moment they exist."""


def main() -> int:
    """Read the arguments and the manifest, serve, and return the exit code."""
    parser = argparse.ArgumentParser(prog="serving_agent", description=__doc__)
    parser.add_argument(
        "--manifest", type=Path, required=True, help="JSON file; see serving_agent.contract.manifest"
    )
    path: Path = parser.parse_args().manifest
    log.configure()
    os.umask(PRIVATE_UMASK)
    try:
        manifest = manifests.read(path)
    except (OSError, msgspec.ValidationError, msgspec.DecodeError) as error:
        logger.error("the manifest cannot be read: %s", error)  # noqa: TRY400 - the sentence says it all
        return EXIT_USAGE
    config.prepare_environment(manifest.threads)
    scratch.keep_in(path.parent.absolute())
    return run(manifest, path)


def run(manifest: Manifest, path: Path) -> int:
    """Serve *manifest*, read from *path*, on the fastest loop there is; return the exit code."""
    from serving_agent import agent  # after the environment is set: it imports numpy

    failure_file = agent.failure_path(path)
    failure_file.unlink(missing_ok=True)

    async def serve() -> int:
        return await agent.Agent(manifest, failure_file).run()

    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            return runner.run(serve())
    except StartError as error:
        agent.record_failure(failure_file, agent.Failure(reason=str(error), phase="starting"))
        logger.error("failed while starting: %s", error)  # noqa: TRY400 - the sentence says it all
        return agent.EXIT_FAILED


def loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    """Return uvloop's loop where it is installed (it does not run on Windows), else None for asyncio's."""
    try:
        import uvloop
    except ImportError:
        return None
    loop: type[asyncio.AbstractEventLoop] = uvloop.Loop
    return loop


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    with contextlib.suppress(OSError):  # a full disk must not keep the process from ending
        sys.stdout.flush()
    scratch.remove()
    # not sys.exit: a model that hangs on the inference thread must not hold the process, and tearing torch
    # down takes longer than leaving
    os._exit(code)
