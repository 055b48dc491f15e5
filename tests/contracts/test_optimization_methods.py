"""Every optimisation method: it refuses in a sentence, or makes what an agent opens and answers alike."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

from control_plane.optimization import catalog
from control_plane.optimization.base import Machine, Subject
from control_plane.optimization.messages import Artefact, BuildOrder, BuildReply
from serving_agent.contract import architecture
from serving_agent.contract.signature import Signature, TensorSpec
from tests.fakes import models
from tests.fakes.lab_worker import Answered, Asked, Question

NETWORKS = '''
"""Networks of an operator: the processes that serve do not have them."""

import torch
from torch import nn


def mlp():
    layers = (nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    return nn.Sequential(nn.Flatten(), *layers)


class Cnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        )
        self.classify = nn.Linear(32 * 16, 10)

    def forward(self, image):
        return self.classify(torch.flatten(self.features(image), 1))
'''
TOKENS = (TensorSpec("input_ids", "INT64", (-1, -1)), TensorSpec("attention_mask", "INT64", (-1, -1)))
VOCABULARY = 96
LANGUAGE = Signature(TOKENS, (TensorSpec("logits", "FP32", (-1, -1, VOCABULARY)),))
PARENTS = ("mlp", "cnn", "cnn-exported", "cnn-script", "encoder", "llama")
BUILDS = {
    "dynamic-int8": (("mlp", {"engine": "onednn", "keep_most_fragile": 1}), ("encoder", {}), ("llama", {})),
    "static-int8": (("cnn", {}), ("cnn", {"engine": "x86", "keep": ["classify"]}), ("cnn-exported", {})),
    "weight-only-int8": (("mlp", {}), ("encoder", {}), ("llama", {})),
    "weight-only-int4": (("encoder", {"keep_most_fragile": 1}), ("llama", {"group": 32})),
    "bf16": (("cnn", {}), ("cnn-exported", {}), ("cnn-script", {}), ("encoder", {}), ("llama", {})),
    "fp16": (("mlp", {}),),
    "l1-pruning": (("cnn-exported", {}), ("cnn-script", {"scope": "network"}), ("encoder", {})),
    "channel-pruning": (("cnn", {}), ("mlp", {"amount": 0.5})),
    "sparse-2-4": (),
    "torchscript-trace": (("cnn", {}), ("cnn-exported", {}), ("encoder", {})),
    "torchscript-script": (("cnn", {}),),
    "compile-cache": (),
    "aot-inductor": (("mlp", {}),),
}
"""Method → what is built with it; most natural parents only, because compiling takes long. A method that is
not named is built from the CNN. One that needs other hardware has none, nor has the compiled cache, which
`test_optimization_engines` builds."""
LEAST_COSINE = {"dynamic-int8": 0.98, "static-int8": 0.98, "weight-only-int4": 0.9, "openvino-weights": 0.9}
"""Of answers to one row with the parent's; others' is 0.999 for what claims to be exact."""
PRUNING = ("l1-pruning", "channel-pruning")
MACHINE = Machine(
    cpu="test", cores=2, flags=frozenset({"avx512_vnni"}), memory_bytes=2**33, compiler="/usr/bin/g++"
)


@dataclass(frozen=True)
class Case:
    """One build."""

    method: str
    parent: str
    params: dict

    @property
    def id(self) -> str:
        said = "-".join(f"{key}={value}" for key, value in self.params.items())
        return f"{self.method}-{self.parent}{'-' + said if said else ''}"


CASES = [
    Case(name, parent, params)
    for name in catalog.names()
    for parent, params in BUILDS.get(name, (("cnn", {}),))
]


def subject(artefact: Artefact, machine: Machine = MACHINE) -> Subject:
    config = Path(artefact.folder) / "config.json"
    named = json.loads(config.read_text())["architectures"][0] if config.exists() else None
    return Subject(
        ref="model@1", format=artefact.format, handler="tensor", signature=artefact.signature, size_bytes=1,
        labels=(), architecture=named, machine=machine,
    )  # fmt: skip


@pytest.fixture(scope="module")
def parents(tmp_path_factory):
    """Name → artefact, and the folder of the networks' code."""
    folder = tmp_path_factory.mktemp("parents")
    code = folder / "code"
    code.mkdir()
    (code / "lab_networks.py").write_text(NETWORKS)
    namespace: dict = {"__name__": "lab_networks"}
    exec(NETWORKS, namespace)
    torch.manual_seed(0)
    images = torch.from_numpy(models.digits_data()[0][:64])
    mlp, cnn = trained(namespace["mlp"]()), trained(namespace["Cnn"]())
    for name, network, builder in (("mlp", mlp, "mlp"), ("cnn", cnn, "Cnn")):
        save_weights(network, folder / name, f"lab_networks:{builder}")
    models.save_exported(cnn, folder / "cnn-exported", images[:4])
    models.save_torchscript(cnn, folder / "cnn-script", images[:4])
    models.save_text_classifier(folder / "encoder")
    save_llama(folder / "llama")
    kinds = {
        "mlp": ("state_dict", models.DIGITS),
        "cnn": ("state_dict", models.DIGITS),
        "cnn-exported": ("exported_program", models.DIGITS),
        "cnn-script": ("torchscript", models.DIGITS),
        "encoder": ("huggingface", models.TEXT_SIGNATURE),
        "llama": ("huggingface", LANGUAGE),
    }
    artefacts = {
        name: Artefact(folder=str(folder / name), format=format_, handler="tensor", signature=signature)
        for name, (format_, signature) in kinds.items()
    }
    return artefacts, code


def trained(network: nn.Module) -> nn.Module:
    images, classes = (torch.from_numpy(part[:1500]) for part in models.digits_data())
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for step in range(40):
        rows = slice(step * 100 % 1500, step * 100 % 1500 + 100)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images[rows]), classes[rows]).backward()
        optimizer.step()
    return network.eval()


def save_weights(network: nn.Module, folder: Path, builder: str) -> None:
    from safetensors.torch import save_file

    folder.mkdir()
    save_file(network.state_dict(), folder / architecture.WEIGHTS)
    architecture.write(architecture.Architecture(builder, {}), folder)


def save_llama(folder: Path) -> None:
    import transformers

    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, intermediate_size=64, max_position_embeddings=64,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).eval().save_pretrained(folder)


def batches(parent: str) -> list[dict[str, np.ndarray]]:
    """One row, five rows, and of texts another length."""
    if parent not in ("encoder", "llama"):
        images = models.digits_data()[0]
        return [{"image": images[1500:1501]}, {"image": images[1500:1505]}]
    words = 20 if parent == "encoder" else VOCABULARY
    random = np.random.default_rng(5)
    made = []
    for rows, length in ((1, 6), (5, 6), (3, 11)):
        mask = np.ones((rows, length), dtype=np.int64)
        mask[1:2, -2:] = 0
        made.append({"input_ids": random.integers(4, words, (rows, length)), "attention_mask": mask})
    return made


def calibration(parent: str) -> list[dict]:
    if parent in ("encoder", "llama"):
        return [{name: array[0].tolist() for name, array in batches(parent)[1].items()} for _ in range(4)]
    return [{"image": image.tolist()} for image in models.digits_data()[0][:32]]


def ask(asked: Asked, folder: Path, *code: Path) -> Answered:
    """Have a process of its own do it; *code*: folders whose modules it may import."""
    folder.mkdir(exist_ok=True)
    (folder / "asked").write_bytes(msgspec.json.encode(asked))
    path = os.pathsep.join(map(str, (Path.cwd(), *code)))
    run = subprocess.run(
        [sys.executable, "-m", "tests.fakes.lab_worker", str(folder / "asked"), str(folder / "told")],
        env={**os.environ, "PYTHONPATH": path, "TOKENIZERS_PARALLELISM": "false"},
        capture_output=True, text=True, timeout=1000,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    return msgspec.json.decode((folder / "told").read_bytes(), type=Answered)


def question(artefact: Artefact, parent: str, folder: Path) -> Question:
    folder.mkdir(parents=True)
    inputs = []
    for number, batch in enumerate(batches(parent)):
        np.savez(folder / f"in{number}.npz", **batch)
        inputs.append(str(folder / f"in{number}.npz"))
    answers = tuple(str(folder / f"out{number}.npz") for number in range(len(inputs)))
    return Question(artefact=artefact, batches=tuple(inputs), answers=answers)


def loaded(asked: Question) -> list[dict[str, np.ndarray]]:
    return [dict(np.load(path)) for path in asked.answers]


@dataclass(frozen=True, repr=False)
class Made:
    """What a case became."""

    reply: BuildReply
    folder: Path
    answers: list[dict[str, np.ndarray]]
    expected: list[dict[str, np.ndarray]]
    failed: str | None


@pytest.fixture(scope="module")
def made(parents, tmp_path_factory) -> dict[str, Made]:
    """Case id → what became of it: built in one process, opened in another without the networks' classes."""
    artefacts, code = parents
    folder = tmp_path_factory.mktemp("variants")
    orders = []
    for number, case in enumerate(CASES):
        out = folder / f"out{number}"
        out.mkdir()
        rows = folder / f"rows{number}.json"
        rows.write_text(json.dumps(calibration(case.parent)))
        orders.append(
            BuildOrder(
                parent=artefacts[case.parent],
                method=case.method,
                params=case.params,
                out=str(out),
                threads=1,
                rows_file=str(rows) if catalog.get(case.method).calibrated else None,
            )
        )
    asked = [question(artefacts[name], name, folder / "expected" / name) for name in PARENTS]
    built = ask(Asked(orders=tuple(orders), questions=tuple(asked)), folder / "build", code)
    assert [told.failed for told in built.told] == [None] * len(PARENTS)
    expected = {name: loaded(each) for name, each in zip(PARENTS, asked, strict=True)}
    done = {
        case.id: (case, reply, order) for case, reply, order in zip(CASES, built.replies, orders, strict=True)
    }
    questions = {
        key: question(
            msgspec.structs.replace(order.parent, folder=order.out, format=reply.format),
            case.parent,
            folder / "answers" / str(number),
        )
        for number, (key, (case, reply, order)) in enumerate(done.items())
        if reply.failed is None
    }
    served = ask(Asked(questions=tuple(questions.values())), folder / "serve")
    told = dict(zip(questions, served.told, strict=True))
    return {
        key: Made(
            reply=reply,
            folder=Path(order.out),
            expected=expected[case.parent],
            failed=told[key].failed if key in told else None,
            answers=loaded(questions[key]) if key in told and not told[key].failed else [],
        )
        for key, (case, reply, order) in done.items()
    }


@pytest.fixture(params=catalog.names())
def method(request):
    return catalog.get(request.param)


def is_sentence(reason: str) -> bool:
    return bool(re.fullmatch(r"[^\n]{15,300}", reason)) and not reason.endswith((".", ":", " "))


@pytest.mark.parametrize("parent", PARENTS)
def test_it_applies_with_parameters_or_says_why_not(method, parent, parents):
    target = subject(parents[0][parent])
    reason = method.inapplicable(target)
    if reason is not None:
        assert is_sentence(reason), reason
        return
    candidates = method.candidates(target)
    assert candidates
    for params in candidates:
        again = method.params.model_validate(json.loads(params.model_dump_json()))
        assert again == params
    assert len({params.model_dump_json() for params in candidates}) == len(candidates)


def test_its_parameters_make_a_form(method):
    assert method.title
    assert method.description.endswith(".")
    assert method.cost_s > 0
    for name, field in method.params.model_fields.items():
        assert field.title, name
        assert field.description, name
        assert field.description.endswith("."), name
        assert not field.is_required(), name


def test_what_is_built_applies(parents):
    for case in CASES:
        target = subject(parents[0][case.parent])
        assert catalog.get(case.method).inapplicable(target) is None, case.id


@pytest.mark.timeout(900)  # the first of these builds everything
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_process_without_the_class_opens_it_and_gets_the_same_signature(case, made):
    variant = made[case.id]
    assert variant.reply.failed is None
    assert variant.failed is None
    for ours, theirs in zip(variant.expected, variant.answers, strict=True):
        assert ours.keys() == theirs.keys()
        for name, expected in ours.items():
            assert theirs[name].shape == expected.shape
            assert theirs[name].dtype == expected.dtype
            assert np.isfinite(theirs[name]).all()


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "case", [case for case in CASES if case.method not in PRUNING], ids=lambda case: case.id
)
def test_it_answers_like_its_parent(case, made):
    variant = made[case.id]
    least = LEAST_COSINE.get(case.method, 0.995)
    assert variant.answers
    for ours, theirs in zip(variant.expected, variant.answers, strict=True):
        for name, expected in ours.items():
            assert cosines(expected, theirs[name]).min() >= least


def cosines(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Cosine of both answers to each row."""
    one, other = (array.reshape(len(array), -1).astype(np.float64) for array in (ours, theirs))
    return (one * other).sum(1) / (np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_it_names_what_made_it(case, made):
    reply = made[case.id].reply
    assert "torch" in reply.libraries
    assert all(note.endswith(".") for note in reply.notes), reply.notes


@pytest.mark.timeout(900)
def test_channels_that_are_cut_out_shrink_the_artefact(made, parents):
    for parent, params in (("cnn", {}), ("mlp", {"amount": 0.5})):
        folder = made[Case("channel-pruning", parent, params).id].folder
        with zipfile.ZipFile(folder / "model.pt") as program:
            stored = [info for info in program.infolist() if "/constants/" in info.filename]
        before = (Path(parents[0][parent].folder) / architecture.WEIGHTS).stat().st_size
        assert 0 < sum(info.file_size for info in stored) < 0.9 * before


@pytest.mark.timeout(900)
def test_pruned_weights_are_zeros_in_the_parents_own_format(made, parents):
    from safetensors.torch import load_file

    folder = made[Case("l1-pruning", "encoder", {}).id].folder
    before = load_file(Path(parents[0]["encoder"].folder) / "model.safetensors")
    after = load_file(folder / "model.safetensors")
    assert before.keys() == after.keys()
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    zeros = (after[name] == 0).float().mean().item()
    assert zeros == pytest.approx(0.3, abs=0.01)
    assert torch.equal(after[name][after[name] != 0], before[name][after[name] != 0])
    table = "bert.embeddings.word_embeddings.weight"
    assert torch.equal(after[table], before[table])


def test_no_method_needs_torch_to_be_listed():
    code = (
        "import sys; from control_plane.optimization import catalog; "
        "[m.params.model_json_schema() for m in catalog.methods()]; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
