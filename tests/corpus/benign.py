"""Files as people save them with real libraries; conversions must hold their tensors bit by bit."""

from __future__ import annotations

import argparse
import collections
import io
import shutil
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from tests.corpus import protobuf
from tests.corpus.case import Case, Tensors, Write
from tests.fakes import models


def cases() -> Iterator[Case]:
    """Every benign case."""
    for name, (saved, weights) in _checkpoints().items():
        yield _benign(f"torch-{name}", "convert", _saved("model.pt", saved, weights))
    for name in ("linear", "tied", "views", "half", "nested", "empty-and-scalar"):
        saved, weights = _checkpoints()[name]
        yield _benign(f"legacy-{name}", "convert", _saved("model.pth", saved, weights, old=True))
    for suffix in ("bin", "ckpt", "pth", "tar"):
        saved, weights = _checkpoints()["nested"]
        yield _benign(f"torch-called-{suffix}", "convert", _saved(f"model.{suffix}", saved, weights))
    yield from _safetensors()
    yield from _numpy()
    yield from _folders()
    yield from _archives()
    yield from _programs()


def _benign(name: str, verdict: str, write: Write, *codes: str) -> Case:
    return Case(name, "benign", (verdict,), write, codes)


def _saved(file: str, value: Any, weights: Tensors, *, old: bool = False) -> Write:
    def write(folder: Path) -> Tensors:
        torch.save(value, folder / file, _use_new_zipfile_serialization=not old)
        return weights

    return write


def _net() -> nn.Sequential:
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


def _trained(optimizer_class: Callable[..., torch.optim.Optimizer], **options: Any) -> tuple[nn.Module, Any]:
    net = _net()
    optimizer = optimizer_class(net.parameters(), lr=0.1, **options)
    net(torch.ones(3, 4)).sum().backward()
    optimizer.step()
    return net, optimizer


@cache
def _checkpoints() -> dict[str, tuple[Any, Tensors]]:
    """What is saved, and the weights in it."""
    state = dict(_net().state_dict())
    found = {**_plain(state), **_nested(state), **_extras(state)}
    return {name: (value, dict(weights)) for name, (value, weights) in found.items()}


def _same(value: Mapping[str, torch.Tensor]) -> tuple[Any, Tensors]:
    return value, value


def _plain(state: dict[str, torch.Tensor]) -> dict[str, tuple[Any, Tensors]]:
    base = torch.arange(48, dtype=torch.float32).reshape(6, 8)
    shared = torch.rand(5, 3)
    integers = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
    wide = (torch.uint16, torch.uint32, torch.uint64)
    return {
        "linear": _same(state),
        "ordered": _same(collections.OrderedDict(state)),
        "module-state": (_net().state_dict(), state),
        "half": _same({"w": base.half(), "b": base[0].half()}),
        "bfloat16": _same({"w": base.bfloat16()}),
        "float8": _same({"a": base.to(torch.float8_e4m3fn), "b": base.to(torch.float8_e5m2)}),
        "double": _same({"w": base.double()}),
        "integers": _same({str(kind): torch.arange(5).to(kind) for kind in integers}),
        "wide-unsigned": _same({str(kind): torch.arange(5).to(kind) for kind in wide}),
        "bool": _same({"mask": base > 7}),
        "complex": _same({"w": torch.complex(base, -base)}),
        "not-finite": _same({"w": torch.tensor([float("nan"), float("inf"), -0.0, 1e-45])}),
        "tied": _same({"embed.weight": shared, "head.weight": shared}),
        "views": _same({"a": base[1:4], "b": base[:, 2:5], "c": base[::2, ::3], "d": base.flatten()[7:9]}),
        "transposed": _same({"w": base.t(), "p": base.reshape(2, 3, 8).permute(2, 0, 1)}),
        "expanded": _same({"w": torch.ones(1, 4).expand(3, 4)}),
        "empty-and-scalar": _same({"e": torch.empty(0, 3), "s": torch.tensor(3.5), "n": torch.tensor(7)}),
        "parameters": (
            dict(_net().named_parameters()),
            {name: value.detach() for name, value in _net().named_parameters()},
        ),
        "many-tensors": _same({f"layer.{index}.w": torch.full((3,), float(index)) for index in range(500)}),
        "large": _same({"w": torch.rand(1024, 1024)}),
        "odd-names": _same({"größe.ΔW": shared, "a b/c": shared, "x:y": shared}),
        "channels-last": _same({"w": torch.rand(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)}),
        "one-tensor": _same({"w": shared}),
    }  # fmt: skip


def _nested(state: dict[str, torch.Tensor]) -> dict[str, tuple[Any, Tensors]]:
    found: dict[str, tuple[Any, Tensors]] = {}
    optimizers: dict[str, tuple[Callable[..., torch.optim.Optimizer], dict[str, Any]]] = {
        "adam": (torch.optim.Adam, {}), "adamw": (torch.optim.AdamW, {}),
        "sgd": (torch.optim.SGD, {"momentum": 0.9}), "rmsprop": (torch.optim.RMSprop, {}),
        "adagrad": (torch.optim.Adagrad, {}),
    }  # fmt: skip
    for name, (kind, options) in optimizers.items():
        net, optimizer = _trained(kind, **options)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3)
        saved = {
            "epoch": 3, "model_state_dict": net.state_dict(), "optimizer_state_dict": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(), "loss": 0.25,
        }  # fmt: skip
        found[f"training-{name}"] = (saved, dict(net.state_dict()))
    for key in ("state_dict", "model", "module", "net", "model_state"):
        found["nested" if key == "model" else f"nested-{key}"] = ({key: state, "step": 1}, state)
    lightning = {
        "epoch": 1, "global_step": 10, "pytorch-lightning_version": "2.5.0", "state_dict": state, "loops": {},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(0.5)}},
        "optimizer_states": [], "lr_schedulers": [], "hparams_name": "kwargs",
        "hyper_parameters": argparse.Namespace(lr=0.1, layers=[1, 2], name="x"),
    }  # fmt: skip
    found["lightning"] = (lightning, state)
    found["data-parallel"] = _same({f"module.{name}": value for name, value in state.items()})
    found["data-parallel-nested"] = (
        {"state_dict": {f"module.{name}": value for name, value in state.items()}, "epoch": 1},
        {f"module.{name}": value for name, value in state.items()},
    )
    return found


def _extras(state: dict[str, torch.Tensor]) -> dict[str, tuple[Any, Tensors]]:
    extras: dict[str, Any] = {
        "namespace": argparse.Namespace(lr=0.1, nested=argparse.Namespace(a=None)),
        "counter": collections.Counter("abracadabra"),
        "defaultdict": collections.defaultdict(list, {"a": [1]}),
        "numpy-scalars": {"loss": np.float64(0.5), "step": np.int64(7), "f": np.float32(1.5)},
        "numpy-array": np.arange(12.0).reshape(3, 4),
        "sizes-and-types": (torch.Size([1, 2]), torch.float16, torch.device("cpu")),
        "sets": {1, 2, 3},
        "random-state": torch.get_rng_state(),
        "python-random": (3, tuple(range(625)), None),
        "path": Path("runs/best.pt"),
        "history": [{"loss": 0.1 * index, "at": (index, "x", b"y", True, None)} for index in range(50)],
        "complex-number": 1 + 2j,
        "bytes": bytearray(b"abc"),
    }  # fmt: skip
    return {f"with-{name}": ({"state_dict": state, "extra": extra}, state) for name, extra in extras.items()}


def _safetensors() -> Iterator[Case]:
    base = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    files: dict[str, dict[str, torch.Tensor]] = {
        "plain": dict(_net().state_dict()),
        "bfloat16": {"w": base.bfloat16(), "b": base[0].bfloat16()},
        "float8": {"w": base.to(torch.float8_e4m3fn)},
        "scalar": {"w": torch.tensor(1.0), "e": torch.empty(0, 2)},
        "mixed": {"a": base, "b": base.long(), "c": base > 1, "d": base.half()},
    }
    for name, tensors in files.items():
        yield _benign(f"safetensors-{name}", "accept", _tensors_file(tensors))
    yield _benign(
        "safetensors-metadata", "accept", _tensors_file(files["plain"], {"format": "pt", "by": "me"})
    )


def _tensors_file(tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> Write:
    def write(folder: Path) -> Tensors:
        save_file(tensors, folder / "model.safetensors", metadata)
        return tensors

    return write


def _numpy() -> Iterator[Case]:
    arrays = {
        "w": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "n": np.arange(3, dtype=np.int16),
    }
    expected = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}

    def plain(folder: Path) -> Tensors:
        np.savez(folder / "model.npz", **arrays)  # type: ignore[arg-type]  # arrays by name
        return expected

    yield _benign("npz", "convert", plain)


@cache
def _text_classifier() -> dict[str, bytes]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        models.save_text_classifier(Path(folder))
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def _text_weights() -> Tensors:
    from safetensors.torch import load

    return load(_text_classifier()["model.safetensors"])


def _hugging_face(folder: Path, weights: str = "safetensors") -> Tensors:
    """Write the folder with its weights as *weights*; return them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in _text_classifier().items():
        if name != "model.safetensors" or weights == "safetensors":
            (folder / name).write_bytes(content)
    tensors = dict(_text_weights())
    if weights == "bin":
        torch.save(tensors, folder / "pytorch_model.bin")
    elif weights != "safetensors":
        _write_shards(folder, tensors, weights)
    return tensors


def _write_shards(folder: Path, tensors: dict[str, torch.Tensor], weights: str) -> None:
    import json

    names = sorted(tensors)
    stem, suffix = ("model", "safetensors") if weights == "shards" else ("pytorch_model", "bin")
    files = [f"{stem}-0000{index + 1}-of-00002.{suffix}" for index in range(2)]
    for index, file in enumerate(files):
        part = {name: tensors[name].contiguous() for name in names[index::2]}
        if weights == "shards":
            save_file(part, folder / file, {"format": "pt"})
        else:
            torch.save(part, folder / file)
    places = {name: files[number % 2] for number, name in enumerate(names)}
    index_file = folder / f"{stem}.{suffix}.index.json"
    index_file.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))


def _folders() -> Iterator[Case]:
    for weights, verdict in (
        ("safetensors", "accept"), ("shards", "accept"), ("bin", "convert"), ("bin-shards", "convert"),
    ):  # fmt: skip
        yield _benign(f"hf-{weights}", verdict, partial(_hugging_face, weights=weights))

    def documented(folder: Path) -> Tensors:
        for name in ("README.md", "LICENSE", ".gitattributes"):
            (folder / name).write_text("text")
        return _hugging_face(folder)

    def resumed(folder: Path) -> Tensors:
        torch.save({"state": {}, "param_groups": []}, folder / "optimizer.pt")
        torch.save(argparse.Namespace(lr=0.1), folder / "training_args.bin")
        (folder / "trainer_state.json").write_text("{}")
        return _hugging_face(folder)

    yield _benign("hf-documented", "accept", documented)
    yield _benign("hf-resume-state", "accept", resumed)
    yield _benign("hf-below-a-folder", "accept", lambda folder: _hugging_face(folder / "checkpoint-10"))
    yield _benign("dcp", "convert", _distributed)


def _distributed(folder: Path) -> Tensors:
    import torch.distributed.checkpoint as dcp

    state = dict(_net().state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save(state, checkpoint_id=folder, no_dist=True)  # type: ignore[attr-defined]  # it is public
    return state


def _archives() -> Iterator[Case]:
    def packed(name: str, pack: Callable[[Path, Path], None], weights: str = "safetensors") -> Write:
        def write(folder: Path) -> Tensors:
            source = folder / "source"
            tensors = _hugging_face(source / "my-model", weights)
            pack(source, folder / name)
            shutil.rmtree(source)
            return tensors

        return write

    def tar(mode: str, top: str = ".") -> Callable[[Path, Path], None]:
        def pack(source: Path, target: Path) -> None:
            with tarfile.open(target, mode) as archive:  # type: ignore[call-overload]
                archive.add(source / "my-model" if top else source, arcname=top or ".")

        return pack

    def zip_(source: Path, target: Path) -> None:
        shutil.make_archive(str(target.with_suffix("")), "zip", source)

    def flat_zip(source: Path, target: Path) -> None:
        shutil.make_archive(str(target.with_suffix("")), "zip", source / "my-model")

    def zip_of_tar(source: Path, target: Path) -> None:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            archive.add(source, arcname=".")
        with zipfile.ZipFile(target, "w") as outer:
            outer.writestr("my-model.tar.gz", buffer.getvalue())

    yield _benign("tar", "accept", packed("m.tar", tar("w")))
    yield _benign("tar-gz", "accept", packed("m.tar.gz", tar("w:gz", "")))
    yield _benign("tgz-of-bin", "convert", packed("m.tgz", tar("w:gz", "my-model"), "bin"))
    yield _benign("zip", "accept", packed("m.zip", zip_))
    yield _benign("zip-flat", "accept", packed("m.zip", flat_zip, "shards"))
    yield _benign("zip-of-tar-gz", "accept", packed("m.zip", zip_of_tar))

    def zipped_state(folder: Path) -> Tensors:
        state = dict(_net().state_dict())
        torch.save(state, folder / "model.pt")
        with zipfile.ZipFile(folder / "m.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(folder / "model.pt", "run/model.pt")
        (folder / "model.pt").unlink()
        return state

    yield _benign("zip-of-state-dict", "convert", zipped_state)


def _programs() -> Iterator[Case]:
    example = torch.zeros(2, 1, 8, 8)

    def onnx(folder: Path) -> None:
        (folder / "model.onnx").write_bytes(protobuf.model())

    def external(folder: Path) -> None:
        (folder / "model.onnx").write_bytes(protobuf.model(external="weights.data"))
        (folder / "weights.data").write_bytes(bytes(16))

    def scripted(folder: Path) -> None:
        models.save_torchscript(models.digits_model(), folder)

    def traced(folder: Path) -> None:
        models.save_torchscript(models.digits_model(), folder, example)

    def exported(folder: Path) -> None:
        models.save_exported(models.digits_model(), folder, example)

    def exported_in_tar(folder: Path) -> None:
        exported(folder)
        with tarfile.open(folder / "m.tar.gz", "w:gz") as archive:
            archive.add(folder / "model.pt2", arcname="model.pt2")
        (folder / "model.pt2").unlink()

    writes = {
        "onnx": onnx, "onnx-external": external, "torchscript": scripted, "torchscript-traced": traced,
        "exported": exported, "exported-in-tar": exported_in_tar,
    }  # fmt: skip
    for name, write in writes.items():
        yield _benign(f"program-{name}", "sandbox", write, "program")
