"""Serving options on the command line: one flag each, put together as a change of the endpoint's options."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import typer

from control_plane.errors import InvalidInputError

_PANEL: Final = "Serving options"
MIB: Final = 1024**2

MaxBatchRows = Annotated[
    int | None, typer.Option(min=1, rich_help_panel=_PANEL, help="Most rows of one batch; 1: no batching.")
]
BatchDelayMs = Annotated[
    float | None,
    typer.Option(
        min=0, rich_help_panel=_PANEL, help="Wait for others while the model is idle, in milliseconds."
    ),
]
BatchBuckets = Annotated[
    str | None,
    typer.Option(rich_help_panel=_PANEL, help="Rows that batches are padded to, e.g. 1,2,4,8, or none."),
]
AdaptiveBatching = Annotated[
    bool | None,
    typer.Option(
        "--adaptive-batching/--no-adaptive-batching",
        rich_help_panel=_PANEL,
        help="Refuse at once what would miss its deadline.",
    ),
]
CacheMib = Annotated[
    float | None,
    typer.Option(min=0, rich_help_panel=_PANEL, help="Memory for cached answers, in MiB; 0: no cache."),
]
CacheTtlS = Annotated[
    float | None,
    typer.Option(rich_help_panel=_PANEL, help="How long an answer may be given again, in seconds."),
]
ChannelsLast = Annotated[
    bool | None,
    typer.Option(
        "--channels-last/--no-channels-last",
        rich_help_panel=_PANEL,
        help="Keep four-dimensional tensors channels last in memory.",
    ),
]
Autocast = Annotated[
    Literal["off", "bf16"] | None,
    typer.Option(rich_help_panel=_PANEL, help="bf16: let torch compute in bfloat16 where it gains; or off."),
]
Compile = Annotated[
    bool | None,
    typer.Option(
        "--compile/--no-compile",
        rich_help_panel=_PANEL,
        help="Translate the model with torch.compile; starts take longer.",
    ),
]
MaxConcurrency = Annotated[
    int | None,
    typer.Option(
        min=0, rich_help_panel=_PANEL, help="Requests an agent takes before it answers 429; 0: no bound."
    ),
]
CheckIntervalS = Annotated[
    float | None,
    typer.Option(min=0, rich_help_panel=_PANEL, help="Seconds between two test inferences; 0: none."),
]

SamplesPerMinute = Annotated[
    int | None,
    typer.Option(
        min=0,
        rich_help_panel=_PANEL,
        help="Requests a minute that each agent keeps for the debugger; 0: none.",
    ),
]
SamplesKeptH = Annotated[
    float | None,
    typer.Option(min=0, rich_help_panel=_PANEL, help="Forget kept requests after so many hours."),
]
Redact = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=_PANEL, help="Inputs and outputs whose data is never kept, e.g. text,image, or none."
    ),
]


def change(
    *,
    max_batch_rows: int | None = None,
    batch_delay_ms: float | None = None,
    batch_buckets: str | None = None,
    adaptive_batching: bool | None = None,
    cache_mib: float | None = None,
    cache_ttl_s: float | None = None,
    channels_last: bool | None = None,
    autocast: str | None = None,
    compile: bool | None = None,  # noqa: A002  torch's word
    max_concurrency: int | None = None,
    check_interval_s: float | None = None,
    samples_per_minute: int | None = None,
    samples_kept_h: float | None = None,
    redact: str | None = None,
) -> dict[str, Any]:
    """The change that the flags ask for, as REST takes it; flags that are None are left out.

    Raises InvalidInputError for buckets that are no list of numbers.
    """
    sections: dict[str, dict[str, Any]] = {
        "batching": {
            "max_rows": max_batch_rows,
            "max_delay_ms": batch_delay_ms,
            "buckets": None if batch_buckets is None else buckets(batch_buckets),
            "adaptive": adaptive_batching,
        },
        "cache": {
            "max_bytes": None if cache_mib is None else round(cache_mib * MIB),
            "ttl_s": cache_ttl_s,
        },
        "execution": {"channels_last": channels_last, "autocast": autocast, "compile": compile},
        "sampling": {
            "per_minute": samples_per_minute,
            "keep_hours": samples_kept_h,
            "redact": None if redact is None else names(redact),
        },
    }
    patch: dict[str, Any] = {name: _given(values) for name, values in sections.items() if _given(values)}
    if max_concurrency is not None:
        patch["max_concurrency"] = max_concurrency or None
    return patch | _given({"check_interval_s": check_interval_s})


def names(text: str) -> list[str]:
    """Tensor names from `text,image`; none from `none`."""
    return [] if text.strip() == "none" else [name.strip() for name in text.split(",")]


def buckets(text: str) -> list[int]:
    """Batch sizes from `1,2,4,8`; none from `none`. Raises InvalidInputError."""
    if text.strip() == "none":
        return []
    try:
        return [int(size) for size in text.split(",")]
    except ValueError as error:
        raise InvalidInputError(
            f"--batch-buckets {text!r} is no list of numbers", next_step="Write for example 1,2,4,8, or none."
        ) from error


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
