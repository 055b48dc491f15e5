"""`static-int8`: weights and activations as int8, with scales fixed by calibration."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import Field

from control_plane.optimization import (
    containers,
    exporting,
    graph_int8,
    layers,
    sensitivity,
    torchscript,
)
from control_plane.optimization.base import BuildError, Built, Gains, Parent, Subject, Work
from control_plane.optimization.machine import this_machine

if TYPE_CHECKING:
    from torch.nn import Module

Engine = Literal["onednn", "x86"]
BY_GRAPH: Final = ("huggingface", "exported_program")
"""Formats whose exported graph is quantised and compiled; others are quantised module by module where FX can
trace them."""


class StaticInt8Params(layers.KeptLayers):
    """The engine whose kernels run it, and what it leaves alone."""

    engine: Engine = Field(
        default="onednn",
        title="Engine",
        description=(
            "onednn is better for batches, x86 for one row. Not used where the graph is compiled: Hugging "
            "Face folders and exported programs."
        ),
    )


class StaticInt8:
    """FX graph mode in TorchScript for networks of modules; torchao PT2E with AOTInductor for the rest."""

    name = "static-int8"
    title = "Static int8"
    description = (
        "Weights (by channel) and activations as int8, with scales fixed on calibration rows. The fastest "
        "for batches of convolutions and linear layers, up to 10 times, and a quarter of the size. The "
        "calibration rows have to look like real ones."
    )
    params = StaticInt8Params
    calibrated = True
    cost_s = 6.0
    gains = Gains(latency=3.0, throughput=10.0, size=3.9)

    def inapplicable(self, subject: Subject) -> str | None:
        """Takes a network of modules, or a graph where there is a compiler for it."""
        if subject.is_language_model:
            return "activations of a language model are too uneven for fixed int8 scales"
        if subject.format == "state_dict":
            return None
        if subject.format in BY_GRAPH:
            return exporting.unexportable(subject) or containers.uncompilable(subject.machine)
        return f"a version of format {subject.format} has no layers and no graph that could be calibrated"

    def candidates(self, subject: Subject) -> tuple[StaticInt8Params, ...]:
        """Both engines, and fragile layers left alone."""
        if subject.format == "exported_program":
            return (StaticInt8Params(),)
        if subject.format in BY_GRAPH:
            return (StaticInt8Params(), StaticInt8Params(keep_most_fragile=2))
        return (
            StaticInt8Params(),
            StaticInt8Params(engine="x86"),
            StaticInt8Params(keep_most_fragile=2),
        )

    def build(self, work: Work, params: StaticInt8Params) -> Built:
        """Write `model.pt` and `quantized.json`, or the package `model.pt2`. Raises BuildError."""
        if not work.calibration.batches:
            raise BuildError("it has no calibration rows, which fixed scales are taken from")
        if work.parent.format in BY_GRAPH:
            return by_graph(work, params)
        try:
            return by_modules(work, params)
        except UntraceableError as error:
            work.say(str(error))
            if containers.uncompilable(this_machine()):
                raise
            return by_graph(work, params)


METHOD: Final = StaticInt8()


class UntraceableError(BuildError):
    """FX cannot make a graph of the network, which torch.export still may."""


def by_modules(work: Work, params: StaticInt8Params) -> Built:
    """Quantise the network that FX traces and write it as TorchScript."""
    import torch

    parent = work.parent
    named = quantisable(parent.network)
    kept = kept_layers(work, params, named)
    torch.backends.quantized.engine = params.engine
    with torchscript.quiet():
        prepared = observed(parent, kept, params.engine)
        work.say(f"calibrate {len(named) - len(kept)} of {len(named)} layers on {work.calibration.rows} rows")
        for batch in work.calibration.batches:
            prepared(*batch)
        made = torch.ao.quantization.quantize_fx.convert_fx(prepared)
    parent.module.network = made
    built = containers.write(
        parent.module, work, freeze=False, tolerance=graph_int8.TOLERANCE, notes=layers.told(kept, len(named))
    )
    torchscript.write_engine(params.engine, work.out)
    return built


def observed(parent: Parent, kept: Collection[str], engine: str) -> Any:
    """The network as a graph that watches its activations. Raises UntraceableError."""
    import torch
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.quantize_fx import prepare_fx

    # x86: 7 bits of activations, against overflow of 16-bit sums; onednn does without where there is VNNI
    safe = engine == "x86" or not torch.cpu._is_vnni_supported()
    mapping = get_default_qconfig_mapping("x86" if safe else engine)
    for name in kept:
        mapping.set_module_name(name, None)
    try:
        return prepare_fx(parent.network, mapping, parent.samples)
    except Exception as error:
        raise UntraceableError(f"FX cannot trace it into a graph: {exporting.first_line(error)}") from error


def by_graph(work: Work, params: StaticInt8Params) -> Built:
    """Quantise the exported graph and compile it, which alone gives it int8 kernels."""
    parent = work.parent
    if params.keep_most_fragile and parent.kind != "eager":
        raise BuildError("an exported program has no layers of which fragile ones could be told")
    containers.require_compiler()
    layers.without_shortcuts()
    named = quantisable(parent.network) if parent.kind == "eager" else {}
    kept = kept_layers(work, params, named)
    work.say("export")
    program = exporting.exported(parent)
    work.say(f"calibrate on {work.calibration.rows} rows")
    with exporting.quiet():
        graph, count = graph_int8.quantised(program, work.calibration.batches, kept)
        converted = exporting.program_of(graph, parent)
    notes = (f"{count} operators are int8.", *layers.told(kept, len(named)))
    built = containers.package(
        converted, graph, work, options=graph_int8.OPTIONS, tolerance=graph_int8.TOLERANCE, notes=notes
    )
    return Built(format=built.format, notes=built.notes, libraries=("torch", "torchao"))


def quantisable(network: Module) -> dict[str, Module]:
    """Name → layer for what static int8 changes."""
    from torch import nn

    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    return {name: layer for name, layer in network.named_modules() if type(layer) in kinds}


def kept_layers(work: Work, params: StaticInt8Params, named: dict[str, Module]) -> frozenset[str]:
    """The names of layers that stay in full precision. Raises BuildError."""
    if not named and work.parent.kind != "eager":
        return frozenset(params.keep)
    chosen = layers.split_off(
        named,
        params,
        lambda count: sensitivity.most_fragile(work, named, sensitivity.INT8, count),
        "convolution or linear layer",
    )
    return frozenset(named) - chosen
