"""Hugging Face folders: config.json, weights (safetensors or pickled) and a tokenizer; no code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NoReturn

from control_plane.admission import bounded_json
from control_plane.admission.base import Accepted, LeftOut, Received, ReceivedFile, Refusal
from control_plane.admission.formats import (
    chat_template,
    hf_architecture,
    hf_left_out,
    hf_other_kinds,
    hf_weights,
    inert_config,
)
from control_plane.admission.reasons import ReasonCode

CONFIG: Final = "config.json"
KNOWN: Final = re.compile(
    r"config\.json|generation_config\.json|tokenizer\.json|tokenizer_config\.json|special_tokens_map\.json"
    r"|added_tokens\.json|vocab\.txt|vocab\.json|merges\.txt|spiece\.model|spm\.model|sentencepiece\.bpe\.model"
    r"|tokenizer\.model|chat_template\.(jinja|json)|additional_chat_templates/[\w-]+\.jinja"
    r"|preprocessor_config\.json|processor_config\.json|modules\.json|sentence_bert_config\.json"
    r"|config_sentence_transformers\.json|1_Pooling/config\.json|2_Normalize/config\.json"
)
"""Names that become part of the artefact as they came."""
PICKLED: Final = re.compile(r".*\.(bin|pt|pth|ckpt|pkl|pickle|joblib)")
CODE: Final = re.compile(r"(?i).*\.(pyc?|pyd|so|o|a|dll|dylib|exe|sh|bat|js|jar)(\.\d+)*")
SENTENCEPIECE: Final = ("spiece.model", "spm.model", "sentencepiece.bpe.model", "tokenizer.model")
TOKENIZERS: Final = (
    {"tokenizer.json"},
    {"vocab.txt"},
    {"vocab.json", "merges.txt"},
    *({name} for name in SENTENCEPIECE),
)
"""Sets of files of which any one whole set makes a tokenizer."""
TOKENIZER_NAMES: Final = frozenset(
    {"tokenizer.json", "tokenizer_config.json", "vocab.txt", "merges.txt", *SENTENCEPIECE}
)
SAVE_FOLDER: Final = (
    "Write the folder with model.save_pretrained(folder) and tokenizer.save_pretrained(folder)."
)


class HuggingFace:
    """Lets Hugging Face folders in whose architecture a handler can serve."""

    name = "huggingface"

    def recognises(self, received: Received) -> bool:
        """Tell whether a config.json is there, weights beside a tokenizer, or a kind that is explained."""
        names = {file.name for file in received}
        has_weights = any(hf_weights.is_weights(name) for name in names)
        return (
            CONFIG in names
            or hf_other_kinds.is_other(received)
            or (has_weights and bool(names & TOKENIZER_NAMES))
        )

    def read(self, received: Received) -> Accepted:
        """Check every file and choose the handler by the architecture."""
        hf_other_kinds.check(received)
        files, outside = _by_name(received)
        kept, left_out = _sorted_out(files)
        config = bounded_json.parse_file(files[CONFIG])
        for name in kept:
            _check_content(name, files[name])
        served = hf_architecture.served(config, files[CONFIG].path)
        weights = hf_weights.read(files)
        if served.signature.inputs == hf_architecture.TEXT:
            _check_tokenizer(files)
        return Accepted(
            format=self.name,
            handler=served.handler,
            signature=served.signature,
            program=False,
            labels=served.labels,
            stored=tuple((name, files[name].path) for name in kept),
            weights=weights.files,
            left_out=(*left_out, *outside, *weights.left_out),
            converted=weights.pickled,
            code=ReasonCode.CONVERTED_WEIGHTS if weights.pickled else ReasonCode.PLAIN_WEIGHTS,
        )


def _by_name(received: Received) -> tuple[dict[str, ReceivedFile], list[LeftOut]]:
    """Return the files by their names in the model's folder, where config.json lies, and those outside."""
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
    if len(configs) > 1 and configs[0].count("/") == configs[1].count("/"):
        raise Refusal(
            ReasonCode.SEVERAL_FILES,
            f"there are two models: {configs[0]} and {configs[1]}",
            "Upload one of them.",
            file=configs[1],
        )
    top = configs[0].removesuffix(CONFIG)
    files = {file.path.removeprefix(top): file for file in received if file.path.startswith(top)}
    return files, [_outside(file) for file in received if not file.path.startswith(top)]


def _outside(file: ReceivedFile) -> LeftOut:
    if CODE.fullmatch(file.path):
        raise _code(file)
    return LeftOut(file.path, file.size_bytes, "outside of the model's folder")


def _sorted_out(files: Mapping[str, ReceivedFile]) -> tuple[list[str], list[LeftOut]]:
    """Return the names that are kept as they came and what is left out. Raises Refusal for anything else."""
    kept, left_out = [], []
    for name, file in files.items():
        if CODE.fullmatch(name):
            raise _code(file)
        if KNOWN.fullmatch(name):
            kept.append(name)
        elif why := hf_left_out.why(name):
            left_out.append(LeftOut(file.path, file.size_bytes, why))
        elif not hf_weights.is_part(name):
            _refuse_unknown(name, file)
    return kept, left_out


def _refuse_unknown(name: str, file: ReceivedFile) -> NoReturn:
    if PICKLED.fullmatch(name):
        raise _unwanted(
            ReasonCode.PICKLED_WEIGHTS, file, "is a pickle of no known use, which runs code when it is loaded"
        )
    raise _unwanted(ReasonCode.UNEXPECTED_FILE, file, "is not part of a Hugging Face text model")


def _code(file: ReceivedFile) -> Refusal:
    return _unwanted(ReasonCode.REMOTE_CODE, file, "is code; code from uploads is never run")


def _unwanted(code: ReasonCode, file: ReceivedFile, what: str) -> Refusal:
    return Refusal(code, f"{file.path} {what}", f"Remove it from the folder. {SAVE_FOLDER}", file=file.path)


def _check_content(name: str, file: ReceivedFile) -> None:
    """Check one kept file for anything that a library would run or render beyond bounds."""
    if name.endswith(".jinja"):
        chat_template.check_file(file)
    elif name.endswith(".json") and name != "tokenizer.json":
        value = bounded_json.parse_file_any(file)
        inert_config.check(value, file.path)
        chat_template.check_json(value, file.path)


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
