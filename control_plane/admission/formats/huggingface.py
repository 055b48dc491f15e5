"""Hugging Face folders: config.json, safetensors weights and a tokenizer; no code, no pickles."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from control_plane.admission import bounded_json, safetensors_header
from control_plane.admission.base import Accepted, Received, ReceivedFile, Refusal
from control_plane.admission.formats import hf_architecture
from control_plane.admission.reasons import ReasonCode

CONFIG: Final = "config.json"
INDEX: Final = "model.safetensors.index.json"
WEIGHTS: Final = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
KNOWN: Final = re.compile(
    r"config\.json|generation_config\.json|model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json"
    r"|tokenizer\.json|tokenizer_config\.json|special_tokens_map\.json|added_tokens\.json|vocab\.txt|vocab\.json"
    r"|merges\.txt|spiece\.model|sentencepiece\.bpe\.model|tokenizer\.model|chat_template\.(jinja|json)"
    r"|preprocessor_config\.json|modules\.json|sentence_bert_config\.json|config_sentence_transformers\.json"
    r"|1_Pooling/config\.json|2_Normalize/config\.json"
)
"""Names that become part of the artefact."""
LEFT_OUT: Final = re.compile(
    r"(README|LICENSE|LICENCE|NOTICE|MODEL_CARD)(\.\w+)?|\.gitattributes|\.gitignore|\.DS_Store"
)
"""Names that are let in and left out of the artefact."""
PICKLED: Final = re.compile(r".*\.(bin|pt|pth|ckpt|pkl|pickle|msgpack|joblib)")
CODE: Final = re.compile(r".*\.(py|pyc|so|dll|dylib|sh)")
TOKENIZERS: Final = ({"tokenizer.json"}, {"vocab.txt"}, {"vocab.json", "merges.txt"})
"""Sets of files of which any one whole set makes a tokenizer."""
CODE_KEYS: Final = frozenset({"auto_map", "custom_generate", "custom_pipelines", "trust_remote_code"})
SAVE_FOLDER: Final = (
    "Write the folder with model.save_pretrained(folder) and tokenizer.save_pretrained(folder)."
)


class HuggingFace:
    """Lets Hugging Face folders in whose architecture a handler can serve."""

    name = "huggingface"

    def recognises(self, received: Received) -> bool:
        """Tell whether a config.json or safetensors weights are there."""
        return any(file.name == CONFIG or file.name.endswith(".safetensors") for file in received)

    def read(self, received: Received) -> Accepted:
        """Check every file and choose the handler by the architecture."""
        files = _by_name(received)
        _check_names(files)
        config = bounded_json.parse_file(files[CONFIG])
        for name, file in files.items():
            if name.endswith(".json") and name != "tokenizer.json":
                _check_inert(bounded_json.parse_file(file), file.path)
        served = hf_architecture.served(config, files[CONFIG].path)
        _check_weights(files)
        _check_tokenizer(files)
        return Accepted(
            format=self.name,
            handler=served.handler,
            signature=served.signature,
            program=False,
            labels=served.labels,
            stored=tuple((name, file.path) for name, file in files.items() if KNOWN.fullmatch(name)),
        )


def _by_name(received: Received) -> dict[str, ReceivedFile]:
    """Return the files by their names in the model's folder, which is where config.json lies."""
    configs = sorted(
        (file.path for file in received if file.name == CONFIG), key=lambda path: path.count("/")
    )
    if not configs:
        raise Refusal(
            ReasonCode.MISSING_CONFIG,
            "config.json is missing: weights alone do not say which network they belong to",
            f"Upload the whole folder. {SAVE_FOLDER}",
            file=received[0].path,
        )
    top = configs[0].removesuffix(CONFIG)
    return {file.path.removeprefix(top): file for file in received}


def _check_names(files: Mapping[str, ReceivedFile]) -> None:
    for name, file in files.items():
        if KNOWN.fullmatch(name) or LEFT_OUT.fullmatch(name):
            continue
        if CODE.fullmatch(name):
            code, what = ReasonCode.REMOTE_CODE, "is code; code from uploads is never run"
        elif PICKLED.fullmatch(name):
            code, what = ReasonCode.PICKLED_WEIGHTS, "is a pickle, which runs code when it is loaded"
        else:
            code, what = ReasonCode.UNEXPECTED_FILE, "is not part of a Hugging Face text model"
        raise Refusal(
            code, f"{file.path} {what}", f"Remove it from the folder. {SAVE_FOLDER}", file=file.path
        )


def _check_inert(value: dict[str, Any], file: str) -> None:
    """Refuse configuration that asks for code: anywhere in it, also where today's library would not look."""
    for key, held in _entries(value):
        attention = key in ("attn_implementation", "_attn_implementation") and "/" in str(held)
        if key in CODE_KEYS or attention:
            raise Refusal(
                ReasonCode.REMOTE_CODE,
                f"{file} asks for code of its own ({key}); code from uploads is never run",
                "Use an architecture that transformers brings itself, and save the model again without "
                "trust_remote_code.",
                file=file,
            )


def _entries(root: Any) -> Iterator[tuple[str, Any]]:
    waiting = [root]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield from value.items()
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def _check_weights(files: Mapping[str, ReceivedFile]) -> None:
    shards = {name for name in files if WEIGHTS.fullmatch(name)}
    if not shards:
        raise Refusal(
            ReasonCode.MISSING_WEIGHTS,
            "the folder holds no safetensors weights",
            f"{SAVE_FOLDER} It writes model.safetensors.",
            file=None,
        )
    held = {name: safetensors_header.tensor_names(files[name]) for name in sorted(shards)}
    if INDEX in files:
        _check_index(bounded_json.parse_file(files[INDEX]), held, files[INDEX].path)
    elif shards != {"model.safetensors"}:
        raise _incomplete(f"the weights are in {len(shards)} parts, but {INDEX} is missing", INDEX)


def _check_index(index: dict[str, Any], held: Mapping[str, frozenset[str]], file: str) -> None:
    places = index.get("weight_map")
    if not isinstance(places, dict) or not places:
        raise _incomplete("it does not say which part holds which tensor", file)
    for tensor, part in places.items():
        if not isinstance(part, str) or part not in held:
            raise _incomplete(f"it names the part {str(part)[:80]!r}, which is not in the folder", file)
        if tensor not in held[part]:
            raise _incomplete(f"{part} lacks the tensor {tensor[:80]}", file)


def _incomplete(why: str, file: str) -> Refusal:
    return Refusal(
        ReasonCode.MISSING_WEIGHTS,
        f"weights are incomplete: {why}",
        f"Upload all parts. {SAVE_FOLDER}",
        file=file,
    )


def _check_tokenizer(files: Mapping[str, ReceivedFile]) -> None:
    if any(needed <= files.keys() for needed in TOKENIZERS):
        return
    raise Refusal(
        ReasonCode.MISSING_TOKENIZER,
        "the folder holds no tokenizer (tokenizer.json), so the model cannot read text",
        "Add it with tokenizer.save_pretrained(folder), using the tokenizer the model was trained with.",
        file=None,
    )


FORMAT: Final = HuggingFace()
