"""`weight-only-int4`: weights stored as int4 in groups, unpacked as they are used."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from control_plane.optimization import containers, layers, sensitivity, weight_only
from control_plane.optimization.base import BuildError, Built, Gains, Subject, Work
from control_plane.optimization.methods.weight_only_int8 import write

OUTPUTS_STEP: Final = 16
"""The kernel takes outputs in blocks of this many."""
Group = Literal[32, 64, 128]


class WeightOnlyInt4Params(layers.KeptLayers, containers.Compilable):
    """How finely weights are grouped."""

    group: Group = Field(
        default=32,
        title="Group",
        description="Weights that share a scale: small groups are more exact, large ones smaller.",
    )
    fit: bool = Field(
        default=True,
        title="Fit the scales",
        description="Search scales that keep large weights apart from small ones (HQQ), which is more exact.",
    )
    embeddings: bool = Field(
        default=True, title="Embeddings as int8", description="Tables of embeddings as int8, one scale a row."
    )


class WeightOnlyInt4:
    """torchao's int4 weights for CPUs, behind torch's own kernel for them."""

    name = "weight-only-int4"
    title = "Weight-only int4"
    description = (
        "Weights of linear layers as int4 in groups, arithmetic in bfloat16: a sixth of the size or less. "
        "Made for large language models; small networks lose more than they win. Faster for few rows, "
        "slower than bfloat16 for many."
    )
    params = WeightOnlyInt4Params
    calibrated = False
    cost_s = 5.0
    gains = Gains(latency=2.5, throughput=1.3, size=6.2)

    def inapplicable(self, subject: Subject) -> str | None:
        """Layers can be replaced in networks of modules only."""
        return layers.irreplaceable(subject)

    def candidates(self, subject: Subject) -> tuple[WeightOnlyInt4Params, ...]:
        """The exact one, and fragile layers left alone; compiled for language models."""
        fine = WeightOnlyInt4Params()
        if subject.is_language_model and not containers.uncompilable(subject.machine):
            return (WeightOnlyInt4Params(compile=True), fine)
        return (fine, WeightOnlyInt4Params(keep_most_fragile=2))

    def build(self, work: Work, params: WeightOnlyInt4Params) -> Built:
        """Write `model.pt`, or `model.pt2`. Raises BuildError where no layer fits the kernel."""
        layers.without_shortcuts()
        layers.linearise(work.parent.module)
        linear = layers.linears(work.parent.network)
        fitting = {
            name: layer
            for name, layer in linear.items()
            if layer.in_features % params.group == 0 and layer.out_features % OUTPUTS_STEP == 0
        }
        if linear and not fitting:
            raise BuildError(
                f"none of its {len(linear)} linear layers has a multiple of {params.group} inputs and of "
                f"{OUTPUTS_STEP} outputs, as the int4 kernel takes them"
            )
        chosen = layers.split_off(
            linear,
            params,
            lambda count: sensitivity.most_fragile(
                work, fitting, sensitivity.Rounding(weight_bits=4, group=params.group), count
            ),
            "linear layer",
        )
        chosen &= fitting.keys()
        if not chosen:
            raise BuildError("it has no linear layer left that could be changed")
        work.say(f"quantise {len(chosen)} of {len(linear)} layers")
        changed = {
            layers.inside(work.parent, name): weight_only.int4_of(linear[name], params.group, fit=params.fit)
            for name in sorted(chosen)
        }
        if params.embeddings:
            for name, table in layers.embeddings(work.parent.network).items():
                if name not in params.keep:
                    changed[layers.inside(work.parent, name)] = weight_only.int8_embedding(
                        *weight_only.int8_rows(table.weight)
                    )
        return write(work, params, changed, layers.told(linear.keys() - chosen, len(linear)))


METHOD: Final = WeightOnlyInt4()
