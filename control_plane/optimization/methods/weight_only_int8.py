"""`weight-only-int8`: weights stored as int8, unpacked as they are used."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from control_plane.optimization import containers, layers, sensitivity, weight_only
from control_plane.optimization.base import Built, Gains, Subject, Work


class WeightOnlyInt8Params(layers.KeptLayers, containers.Compilable):
    """What becomes int8."""

    embeddings: bool = Field(
        default=True, title="Embeddings too", description="Tables of embeddings as int8, one scale a row."
    )


class WeightOnlyInt8:
    """torchao's int8 weights, one scale an output channel, behind torch's own kernel for them."""

    name = "weight-only-int8"
    title = "Weight-only int8"
    description = (
        "Weights of linear layers and embeddings as int8, arithmetic in bfloat16: a quarter of the size and "
        "nearly the same answers. Up to 3 times faster for one row of large layers; for batches it saves "
        "memory, not time."
    )
    params = WeightOnlyInt8Params
    calibrated = False
    cost_s = 4.0
    gains = Gains(latency=2.5, throughput=1.7, size=3.9)

    def inapplicable(self, subject: Subject) -> str | None:
        """Layers can be replaced in networks of modules only."""
        return layers.irreplaceable(subject)

    def candidates(self, subject: Subject) -> tuple[WeightOnlyInt8Params, ...]:
        """Compiled too for language models, where it matters most."""
        plain = WeightOnlyInt8Params()
        if subject.is_language_model and not containers.uncompilable(subject.machine):
            return (WeightOnlyInt8Params(compile=True), plain)
        return (plain, WeightOnlyInt8Params(keep_most_fragile=2))

    def build(self, work: Work, params: WeightOnlyInt8Params) -> Built:
        """Write `model.pt`, or `model.pt2`. Raises BuildError where no layer would change."""
        layers.without_shortcuts()
        layers.linearise(work.parent.module)
        linear = layers.linears(work.parent.network)
        tables = layers.embeddings(work.parent.network) if params.embeddings else {}
        weights = {name: layer.weight for name, layer in linear.items()}
        weights |= {name: table.weight for name, table in tables.items()}
        chosen = layers.split_off(
            weights,
            params,
            lambda count: sensitivity.most_fragile(work, linear, sensitivity.INT8_WEIGHTS, count),
            "linear layer or embedding",
        )
        work.say(f"quantise {len(chosen)} of {len(weights)} layers")
        changed = {}
        for name in sorted(chosen):
            weight, scale = weight_only.int8_rows(weights[name])
            changed[layers.inside(work.parent, name)] = (
                weight_only.int8_embedding(weight, scale)
                if name in tables
                else weight_only.int8_linear(weight, scale.flatten(), linear[name].bias)
            )
        notes = layers.told(weights.keys() - chosen, len(weights))
        return write(work, params, changed, notes)


def write(
    work: Work, params: containers.Compilable, changed: dict[str, weight_only.Layer], notes: tuple[str, ...]
) -> Built:
    """Put the *changed* layers in and write the network, as TorchScript or `model.pt2`."""
    programmed = params.compile or containers.is_language_model(work.parent)
    layers.replace(work.parent.module, changed if programmed else weight_only.scripted(changed))
    built = containers.write(
        work.parent.module, work, compiled=params.compile, freeze=False, tolerance=weight_only.TOLERANCE,
        notes=notes,
    )  # fmt: skip
    return Built(format=built.format, notes=built.notes, libraries=("torch", "torchao"))


METHOD: Final = WeightOnlyInt8()
