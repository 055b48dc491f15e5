"""`dynamic-int8`: weights of linear and recurrent layers as int8, activations quantised as they come."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Final, Literal

from pydantic import Field

from control_plane.optimization import containers, layers, sensitivity, torchscript, weight_only
from control_plane.optimization.base import Built, Gains, Subject, Work

if TYPE_CHECKING:
    from torch.nn import Module

Engine = Literal["x86", "onednn"]
SHARED_SCALE: Final = (
    "All rows of a batch share the scale of their activations: an answer changes slightly with the rows "
    "beside it."
)


class DynamicInt8Params(layers.KeptLayers, containers.Compilable):
    """The engine whose kernels run it, and what it leaves alone."""

    engine: Engine = Field(
        default="x86",
        title="Engine",
        description="x86 is better for one row, onednn for batches. Not used by language models.",
    )
    compile: bool = Field(
        default=False,
        title="Compile",
        description="Language models only: make machine code with AOTInductor; takes a C++ compiler.",
    )


class DynamicInt8:
    """torch.ao.quantization.quantize_dynamic, traced so that no Python class is needed to open it."""

    name = "dynamic-int8"
    title = "Dynamic int8"
    description = (
        "Weights of linear and recurrent layers as int8; activations are quantised as they come, so "
        "nothing has to be calibrated. Fast for networks of large linear layers, and a quarter of their size."
    )
    params = DynamicInt8Params
    calibrated = False
    cost_s = 3.0
    gains = Gains(latency=3.4, throughput=4.8, size=3.9)

    def inapplicable(self, subject: Subject) -> str | None:
        """Layers can be replaced in networks of modules only."""
        return layers.irreplaceable(subject)

    def candidates(self, subject: Subject) -> tuple[DynamicInt8Params, ...]:
        """Both engines, and fragile layers left alone; compiled or not for language models."""
        if subject.is_language_model:
            plain = DynamicInt8Params()
            if containers.uncompilable(subject.machine):
                return (plain,)
            return (DynamicInt8Params(compile=True), plain)
        return (
            DynamicInt8Params(),
            DynamicInt8Params(engine="onednn"),
            DynamicInt8Params(engine="onednn", keep_most_fragile=2),
        )

    def build(self, work: Work, params: DynamicInt8Params) -> Built:
        """Write `model.pt` and `quantized.json`, or a language model's `model.pt2`.

        Raises BuildError where no layer would change.
        """
        layers.without_shortcuts()
        layers.linearise(work.parent.module)
        if containers.is_language_model(work.parent):
            return self._by_rows(work, params)
        import torch
        from torch import nn

        named: dict[str, Module] = {
            name: layer
            for name, layer in work.parent.network.named_modules()
            if type(layer) in (nn.Linear, nn.LSTM, nn.GRU)
        }
        chosen = chosen_layers(work, params, named)
        torch.backends.quantized.engine = params.engine
        qconfig = torch.ao.quantization.default_dynamic_qconfig
        with torchscript.quiet():
            torch.ao.quantization.quantize_dynamic(  # type: ignore[no-untyped-call]  # its own is untyped
                work.parent.module,
                {layers.inside(work.parent, name): qconfig for name in chosen},
                inplace=True,
            )
        notes = (SHARED_SCALE, *layers.told(named.keys() - chosen, len(named)))
        built = containers.write(work.parent.module, work, freeze=False, notes=notes)
        torchscript.write_engine(params.engine, work.out)
        return built

    def _by_rows(self, work: Work, params: DynamicInt8Params) -> Built:
        """A language model: operators that torch.export follows, and a scale for each token."""
        named: dict[str, Module] = dict(layers.linears(work.parent.network))
        chosen = chosen_layers(work, params, named)
        linear = layers.linears(work.parent.network)
        made = {
            layers.inside(work.parent, name): weight_only.dynamic_int8_linear(linear[name])
            for name in sorted(chosen)
        }
        layers.replace(work.parent.module, made)
        notes = layers.told(named.keys() - chosen, len(named))
        return containers.write(work.parent.module, work, compiled=params.compile, notes=notes)


def chosen_layers(work: Work, params: DynamicInt8Params, named: dict[str, Module]) -> Collection[str]:
    """The names of layers that become int8. Raises BuildError where none is left."""
    chosen = layers.split_off(
        named,
        params,
        lambda count: sensitivity.most_fragile(work, named, sensitivity.INT8, count),
        "linear or recurrent layer",
    )
    work.say(f"quantise {len(chosen)} of {len(named)} layers")
    return chosen


METHOD: Final = DynamicInt8()
