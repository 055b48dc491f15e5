"""Options that `optimize` and `autotune` share."""

from __future__ import annotations

from typing import Annotated

import typer

Version = Annotated[str, typer.Argument(metavar="MODEL@N", help="model@N or model@alias.")]
Calibration = Annotated[
    str | None,
    typer.Option(
        "--calibration",
        metavar="FILE",
        help="Rows to calibrate with: a file (JSON, JSON Lines, .npz), or examples, or captures.",
    ),
]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads of one inference.")]
Batches = Annotated[
    str | None, typer.Option("--batches", metavar="LIST", help="Batch sizes that are measured, e.g. 1,32.")
]
MinAgreement = Annotated[
    float | None,
    typer.Option(
        "--min-agreement", min=0, max=1, help="Least share of rows answered alike, as a 95 % bound."
    ),
]
MaxDrop = Annotated[
    float | None, typer.Option("--max-drop", min=0, max=1, help="Largest loss of right answers, as a share.")
]
MinSpeedup = Annotated[
    float | None, typer.Option("--min-speedup", min=1, help="How many times faster it must be at least.")
]
MinShrink = Annotated[
    float | None, typer.Option("--min-shrink", min=1, help="Or how many times smaller at least.")
]
