"""The agent's process environment: the only module that touches it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

FORCED: Final[dict[str, str]] = {
    "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "ORT_LOAD_CONFIG_FROM_MODEL": "0",
}
"""Set whatever the parent's environment says: no unpickling of code, no network, no second thread pool,
no settings that a model file brings."""


def prepare_environment(threads: int) -> None:
    """Set FORCED and the size of native thread pools; call before numpy or torch is imported."""
    os.environ.update(FORCED)  # noqa: TID251 - this is the place
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)  # noqa: TID251 - this is the place


def use_compile_cache(folder: Path) -> None:
    """Have torch.compile keep and look for its code in *folder*, instead of a folder of the whole machine."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)  # noqa: TID251 - this is the place
