"""TorchScript's source: operators that read or write files are found however they are written."""

from __future__ import annotations

import io
import zipfile

import pytest
import torch
from torch import nn

from control_plane.admission.formats import script_source


@pytest.mark.parametrize(
    ("source", "operator"),
    [
        ('torch.from_file("/etc/passwd", False, 4)', "from_file"),
        ('(torch.from_file)("/etc/passwd", False, 4)', "from_file"),
        ('torch.from_file\\\n("/etc/passwd", False, 4)', "from_file"),
        ("torch . from_file\n", "from_file"),
        ("ops.image.read_file(p)", "read_file"),
        ("w = ops.image.write_file", "write_file"),
        ("torch.save(x, p)", "torch.save"),
        ("ops.aten.save(x, p)", "ops.aten.save"),
        ('"it\'s" + "a # b"; torch.save(x, p)', "torch.save"),
        ('# "\ntorch.save(x, p)', "torch.save"),
        ("'''\"'''; torch.save(x, p)", "torch.save"),
    ],
)
def test_file_operators_are_found(source: str, operator: str) -> None:
    assert script_source.file_operator(f"def f(x):\n  {source}\n") == operator


@pytest.mark.parametrize(
    "source",
    [
        "torch. save(x, p)", "torch .save(x, p)", "(torch.save)(x, p)", "torch.save (x, p)", "t = torch",
        "t = ops.aten",
        "(torch. # c\n  save)(x, p)", 'getattr(torch, "sa\\166e")(x, p)', "torch\\\n.save(x, p)",
        "(torch).save(x, p)", "t = torch.save", '"', "'''", "x = 'a\nb'",
    ],
)  # fmt: skip
def test_operators_that_are_not_plainly_called_are_refused(source: str) -> None:
    with pytest.raises(script_source.UnusualSourceError):
        script_source.file_operator(f"def f(x):\n  {source}\n")


@pytest.mark.parametrize(
    "source", ["(torch. # c\n  save)(x, p)", "t = torch\n    t.save(x, p)", "(torch.save)(x, p)"]
)
def test_torch_does_run_what_is_refused(source: str) -> None:
    text = f"def f(p: str, x: Tensor):\n    {source}\n"
    torch.jit.CompilationUnit(text)
    with pytest.raises(script_source.UnusualSourceError):
        script_source.file_operator(text)


class Many(nn.Module):
    """Holds much of what torch prints: nested names, messages, devices, types."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4)
        self.layers = nn.Sequential(nn.Linear(4, 4), nn.TransformerEncoderLayer(4, 2))
        self.named = nn.ModuleDict({"a-b": nn.ReLU()})
        self.save = True

    def forward(self, x: torch.Tensor, ops: torch.Tensor) -> torch.Tensor:
        if self.save:
            assert x.numel() > 0, 'torch\'s "x" \\ of\n ops is torch # a'
        moved = x.to(torch.device("cpu"), dtype=torch.float)
        return self.named["a-b"](self.layers(self.lstm(moved)[0])) + ops


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_what_torch_writes_comes_through() -> None:
    held = io.BytesIO()
    torch.jit.save(torch.jit.script(Many()), held)
    with zipfile.ZipFile(held) as zipped:
        sources = [zipped.read(name).decode() for name in zipped.namelist() if name.endswith(".py")]
    assert len(sources) > 5
    assert [script_source.file_operator(source) for source in sources] == [None] * len(sources)
