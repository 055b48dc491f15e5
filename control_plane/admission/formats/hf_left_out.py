"""Files that Hugging Face folders hold and serving does not need: never read, left out, reported. Pure."""

from __future__ import annotations

import re
from typing import Final

CACHE: Final = re.compile(r"(.*/)?\.cache/.*")
"""What `hf download` keeps beside the files."""
KINDS: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    (
        re.compile(r"(?i)(README|LICENSE|LICENCE|NOTICE|MODEL_CARD|USE_POLICY|CHANGELOG)([.-][\w.-]+)?"
                   r"|\.(gitattributes|gitignore|DS_Store)"
                   r"|[\w .-]+\.(md|rst|pdf|png|jpe?g|gif|svg|webp|csv|tsv)"
                   r"|(figures|images|assets|img|docs)/.+\.(md|png|jpe?g|gif|svg|webp|pdf)"),
        "not weights",
    ),
    (CACHE, "not weights"),
    (re.compile(r"optimizer(_\d+)?\.(pt|bin|safetensors)|(.*/)?optim_states[\w.-]*\.pt"), "optimiser state"),
    (
        re.compile(r"(scheduler|scaler|training_args|rng_state(_\d+)?|random_states_\d+)\.(pt|pth|bin|pkl)"
                   r"|trainer_state\.json|latest|(all|eval|train|test|predict)_results\.json|runs/.*"
                   r"|(.*/)?events\.out\.tfevents[\w.@-]*|global_step\d+/.*|checkpoint-\d+/.*|wandb/.*"),
        "resume state",
    ),
    (
        re.compile(r"(tf_model|flax_model|rust_model|model)([\w.-]*)\.(h5|msgpack|ot|gguf|onnx|onnx_data)"
                   r"|(onnx|openvino|coreml|tflite|gguf|original|mlx)/.*|[\w.-]+\.(gguf|tflite|mlmodel)"),
        "the model in another form",
    ),
)  # fmt: skip
"""What names look like → why such files are left out."""


def why(name: str) -> str | None:
    """Return why the file *name* of a folder is left out, None where it is not one of these kinds."""
    return next((reason for pattern, reason in KINDS if pattern.fullmatch(name)), None)
