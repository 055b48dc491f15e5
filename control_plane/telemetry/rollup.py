"""Ageing of stored samples: 30 s sums of what was taken, and forgetting what is too old."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from typing import Final

from control_plane.telemetry.encoding import decode_counts, encode_counts
from control_plane.telemetry.samples import SampleKind

RAW: Final = 0
ROLLED: Final = 1
SLOT_MS: Final = 30_000

_SUMS: Final = f"""
INSERT OR REPLACE INTO sample
SELECT {ROLLED}, measured_id, (t_ms + {SLOT_MS - 1}) / {SLOT_MS} * {SLOT_MS} AS slot_ms, sum(span_ms),
       CASE kind WHEN '{SampleKind.GAUGE.value}' THEN avg(value) ELSE sum(value) END, NULL
FROM measured CROSS JOIN sample ON measured.id = measured_id
WHERE tier = {RAW} AND t_ms > :after AND t_ms <= :until
GROUP BY measured_id, slot_ms
"""  # noqa: S608  only constants of this module
_COUNTS: Final = f"""
SELECT measured_id, (t_ms + {SLOT_MS - 1}) / {SLOT_MS} * {SLOT_MS}, counts, json_array_length(bounds) + 1
FROM measured CROSS JOIN sample ON measured.id = measured_id
WHERE tier = {RAW} AND kind = '{SampleKind.HISTOGRAM.value}' AND t_ms > :after AND t_ms <= :until
  AND length(counts) > 0
"""  # noqa: S608  only constants of this module


def roll_up(connection: sqlite3.Connection, until_ms: int) -> None:
    """Sum samples up to *until_ms* (a multiple of SLOT_MS) that are in no roll-up yet. Idempotent."""
    between = {"after": _rolled_until(connection), "until": until_ms}
    connection.execute(_SUMS, between)
    merged: dict[tuple[int, int, int], list[bytes]] = defaultdict(list)
    for measured_id, slot_ms, counts, buckets in connection.execute(_COUNTS, between):
        merged[measured_id, slot_ms, buckets].append(counts)
    connection.executemany(
        "UPDATE sample SET counts = ? WHERE tier = ? AND measured_id = ? AND t_ms = ?",
        [_merged(slot, counts) for slot, counts in merged.items()],
    )


def _merged(slot: tuple[int, int, int], counts: list[bytes]) -> tuple[bytes, int, int, int]:
    measured_id, slot_ms, buckets = slot
    return encode_counts(decode_counts(counts, buckets).sum(axis=0)), ROLLED, measured_id, slot_ms


def _rolled_until(connection: sqlite3.Connection) -> int:
    # by measured thing: the primary key answers each without reading the samples
    (latest,) = connection.execute(
        "SELECT max(latest) FROM"
        " (SELECT (SELECT max(t_ms) FROM sample WHERE tier = ? AND measured_id = id) AS latest"
        " FROM measured)",
        (ROLLED,),
    ).fetchone()
    return int(latest) if latest is not None else 0


def forget(connection: sqlite3.Connection, tier: int, before_ms: int) -> None:
    """Delete samples of *tier* taken at or before *before_ms*."""
    # by measured thing: the primary key then finds them without reading the rest
    connection.execute(
        "DELETE FROM sample WHERE tier = ? AND measured_id IN (SELECT id FROM measured) AND t_ms <= ?",
        (tier, before_ms),
    )


def forget_unused(connection: sqlite3.Connection) -> bool:
    """Delete measured things without samples; say whether there were any."""
    deleted = connection.execute(
        "DELETE FROM measured WHERE NOT EXISTS (SELECT 1 FROM sample WHERE measured_id = id AND tier = ?)"
        " AND NOT EXISTS (SELECT 1 FROM sample WHERE measured_id = id AND tier = ?)",
        (RAW, ROLLED),
    )
    return deleted.rowcount > 0
