"""Where in whose code something happened: frames and lines, told without the folders of this machine."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from types import FrameType, TracebackType
from typing import Final

OURS: Final = (
    "serving_agent/inspection/",
    "serving_agent/pipeline.py",
    "serving_agent/formats/",
    "control_plane/optimization/",
)
"""Code that only carries values to the model and back."""
MODULES: Final = "torch/nn/modules/"
CARRIERS: Final = ("torch/nn/modules/module.py", "torch/nn/modules/container.py")
"""Torch's own code that only calls the next module."""
LINE: Final = re.compile(r'^\s*File "(.+)", line (\d+)', re.MULTILINE)
LIBRARIES: Final = ("torch/", "numpy/", "onnxruntime/", "openvino/", "tokenizers/", "safetensors/")


def shown(file: str, line: int) -> str:
    """`file:line` with the file's place in the folder that it was imported from."""
    return f"{short(file)}:{line}"


@cache
def short(file: str) -> str:
    """*file* relative to the longest entry of Python's search path that holds it."""
    path = Path(file)
    roots = sorted((Path(entry or ".").absolute() for entry in sys.path), key=lambda root: -len(root.parts))
    for root in roots:
        if path.is_absolute() and path.is_relative_to(root):
            return path.relative_to(root).as_posix()
    for marker in ("site-packages/", "dist-packages/"):
        if marker in file:
            return file.rpartition(marker)[2]
    return file


@cache
def is_models_own(file: str) -> bool:
    """Whether *file* is code of a model or a handler, and not of a library that carries it."""
    name = short(file)
    if name.startswith(("<", *OURS, *LIBRARIES)):
        return False
    return not _is_of_python(file)


@cache
def _is_of_python(file: str) -> bool:
    return Path(file).is_relative_to(Path(sys.base_prefix)) and "-packages" not in file


def of_traceback(trace: TracebackType | None) -> str:
    """`file:line in function` of the innermost frame of a model's or a handler's own code.

    The `forward` of one of torch's modules counts as such. Empty where there is none.
    """
    for file, line, function in reversed(list(_frames(trace))):
        name = short(file)
        is_layer = name.startswith(MODULES) and name not in CARRIERS and function == "forward"
        if is_layer or is_models_own(file):
            return f"{shown(file, line)} in {function}"
    return ""


def of_caller(frame: FrameType | None) -> str:
    """`file:line` of the nearest frame outwards that is the model's own code; empty where there is none."""
    while frame is not None:
        file = frame.f_code.co_filename
        if is_models_own(file):
            return shown(file, frame.f_lineno)
        if short(file).startswith(OURS):
            return ""
        frame = frame.f_back
    return ""


def innermost(lines: Iterable[tuple[str, int]]) -> str:
    """`file:line` of the last of *lines*, outermost first, that is the model's own; else of the last."""
    own = last = ""
    for file, line in lines:
        last = shown(file, line)
        if is_models_own(file):
            own = last
    return own or last


@cache
def of_stack(text: str) -> str:
    """`file:line` of the model's own code in a stack as Python writes it, innermost last; or nothing."""
    return innermost((file, int(line)) for file, line in LINE.findall(text))


def _frames(trace: TracebackType | None) -> Iterator[tuple[str, int, str]]:
    while trace is not None:
        code = trace.tb_frame.f_code
        yield code.co_filename, trace.tb_lineno, code.co_name
        trace = trace.tb_next
