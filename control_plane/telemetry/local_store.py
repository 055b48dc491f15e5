"""The local metrics store: one SQLite file in WAL mode, written by one collector and read by many.

Samples are mergeable, so nothing is computed when they are written: quantiles and rates come out of sums of
increments. Samples as taken are kept for an hour; sums over 30 s for as long as the settings say. Both ages
and the number of measured things are bounded, and with them the file.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from control_plane.telemetry import rollup
from control_plane.telemetry.encoding import decode_counts, encode_counts
from control_plane.telemetry.evaluate import Stored, Window, evaluate, window
from control_plane.telemetry.samples import Key, Sample, SampleKind
from control_plane.telemetry.series import Line, Series, get

logger = logging.getLogger(__name__)

RAW_S: Final = 3600.0
"""How long samples are kept as taken, in seconds."""
RETENTION_S: Final = 24 * 3600.0
MAX_KEYS: Final = 20_000
"""Different measured things at a time; more are dropped, and logged once."""
BUSY_TIMEOUT_S: Final = 5.0

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS measured (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, labels TEXT NOT NULL,
    kind TEXT NOT NULL, bounds TEXT NOT NULL,
    UNIQUE (name, labels, kind, bounds)
);
CREATE TABLE IF NOT EXISTS sample (
    tier INTEGER NOT NULL, measured_id INTEGER NOT NULL, t_ms INTEGER NOT NULL, span_ms INTEGER NOT NULL,
    value REAL NOT NULL, counts BLOB,
    PRIMARY KEY (tier, measured_id, t_ms)
) WITHOUT ROWID;
"""


class LocalStore:
    """The store in the file *path*; cheap to make, and any thread may use it.

    A file that does not exist yet reads as empty. Only one process may write.
    """

    def __init__(self, path: Path, *, raw_s: float = RAW_S, retention_s: float = RETENTION_S) -> None:
        self.path = path
        self.raw_s = raw_s
        self.retention_s = retention_s
        self._ids: dict[Key, int] = {}
        self._full = False
        self._rolled_ms: int | None = None

    # --- writing ---

    def write(self, now_s: float, samples: Sequence[Sample]) -> None:
        """Keep *samples* as taken at *now_s*, in one transaction; roll up and forget what is due.

        now_s: seconds since 1970. The same time twice replaces. Raises sqlite3.Error or OSError.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with closing(self._connect()) as connection, connection:
                connection.execute("BEGIN IMMEDIATE")
                self._write(connection, round(now_s * 1000), samples)
        except sqlite3.Error:
            self._ids.clear()  # some may have been given in this transaction
            raise

    def _write(self, connection: sqlite3.Connection, now_ms: int, samples: Sequence[Sample]) -> None:
        rows = list(self._rows(connection, now_ms, samples))
        connection.executemany("INSERT OR REPLACE INTO sample VALUES (?, ?, ?, ?, ?, ?)", rows)
        self._compact(connection, now_ms)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.executescript(_SCHEMA)
        return connection

    def _rows(
        self, connection: sqlite3.Connection, now_ms: int, samples: Sequence[Sample]
    ) -> Iterator[tuple[Any, ...]]:
        for sample in samples:
            measured_id = self._id(connection, sample.key)
            if measured_id is not None:
                counts = encode_counts(sample.counts) if sample.key.kind is SampleKind.HISTOGRAM else None
                yield rollup.RAW, measured_id, now_ms, round(sample.span_s * 1000), sample.value, counts

    def _id(self, connection: sqlite3.Connection, key: Key) -> int | None:
        if key not in self._ids:
            if not self._has_room(connection):
                return None
            columns = (key.name, json.dumps(dict(key.labels)), key.kind.value, json.dumps(key.bounds))
            connection.execute(
                "INSERT OR IGNORE INTO measured (name, labels, kind, bounds) VALUES (?, ?, ?, ?)", columns
            )
            (self._ids[key],) = connection.execute(
                "SELECT id FROM measured WHERE name = ? AND labels = ? AND kind = ? AND bounds = ?", columns
            ).fetchone()
        return self._ids[key]

    def _has_room(self, connection: sqlite3.Connection) -> bool:
        (known,) = connection.execute("SELECT count(*) FROM measured").fetchone()
        if known < MAX_KEYS:
            self._full = False
            return True
        if not self._full:
            logger.warning(
                "metrics store: more than %d different measurements; new ones are dropped", MAX_KEYS
            )
            self._full = True
        return False

    def _compact(self, connection: sqlite3.Connection, now_ms: int) -> None:
        """Roll up finished slots, then forget samples that are too old and names that have none left."""
        slot_ms = now_ms // rollup.SLOT_MS * rollup.SLOT_MS
        if slot_ms == self._rolled_ms:
            return
        rollup.roll_up(connection, slot_ms)
        rollup.forget(connection, rollup.RAW, now_ms - round(self.raw_s * 1000))
        rollup.forget(connection, rollup.ROLLED, now_ms - round(self.retention_s * 1000))
        if rollup.forget_unused(connection):
            self._ids.clear()
        self._rolled_ms = slot_ms

    # --- reading ---

    def query(
        self,
        series: Series | str,
        start_s: float,
        end_s: float,
        step_s: float,
        *,
        endpoint: str | None = None,
        version: str | None = None,
        agent: str | None = None,
    ) -> list[Line]:
        """Return the lines of *series* over (start_s, end_s] in steps of *step_s*, gaps as None.

        Times in seconds since 1970; steps lie on multiples of step_s. Steps of 30 s and more are read from
        30 s sums (take a multiple of 30), finer ones from samples as taken, which are kept for an hour.
        """
        chosen = get(series) if isinstance(series, str) else series
        over = window(start_s, end_s, step_s)
        stored = self.read(chosen.source, over, endpoint=endpoint, version=version, agent=agent)
        return evaluate(chosen, stored, over)

    def count(self, name: str, start_s: float, end_s: float, **labels: str) -> float:
        """Return the sum of a counter's (or of a histogram's observations') increments in (start_s, end_s].

        labels: exact values, for example endpoint="digits", code="200"; those not named are summed over.
        """
        fine = end_s - start_s <= self.raw_s
        stored = self._read(rollup.RAW if fine else rollup.ROLLED, name, start_s, end_s, labels)
        return float(sum(one.value.sum() for one in stored))

    def samples(self, name: str, after_ms: int, until_ms: int, **labels: str) -> list[Stored]:
        """Return samples of *name* as taken in (after_ms, until_ms]; they are kept for `raw_s` seconds.

        labels: exact values; any others may have any.
        """
        return self._read(rollup.RAW, name, after_ms / 1000, until_ms / 1000, labels)

    def read(self, name: str, over: Window, **labels: str | None) -> list[Stored]:
        """Return samples of *name* fine enough for *over* whose labels have the given values (None: any)."""
        tier = rollup.ROLLED if over.step_s * 1000 >= rollup.SLOT_MS else rollup.RAW
        wanted = {label: value for label, value in labels.items() if value is not None}
        return self._read(tier, name, over.start_s, over.end_s, wanted)

    def _read(
        self, tier: int, name: str, start_s: float, end_s: float, wanted: Mapping[str, str]
    ) -> list[Stored]:
        with self._reading() as connection:
            if connection is None:
                return []
            found = connection.execute("SELECT id, labels, bounds FROM measured WHERE name = ?", (name,))
            chosen = [
                (measured_id, parsed, tuple(json.loads(bounds)))
                for measured_id, text, bounds in found.fetchall()
                if _matches(parsed := json.loads(text), wanted)
            ]
            bounds_ms = (round(start_s * 1000), round(end_s * 1000))
            all_stored = [_stored(connection, tier, *each, bounds_ms) for each in chosen]
        return [one for one in all_stored if one is not None]

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection | None]:
        try:
            connection = sqlite3.connect(
                f"{self.path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_TIMEOUT_S
            )
        except sqlite3.OperationalError:  # no file yet
            yield None
            return
        with closing(connection):
            ready = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'sample'").fetchone()
            yield connection if ready else None


def _matches(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(labels.get(name) == value for name, value in wanted.items())


def _stored(
    connection: sqlite3.Connection,
    tier: int,
    measured_id: int,
    labels: dict[str, str],
    bounds: tuple[float, ...],
    between_ms: tuple[int, int],
) -> Stored | None:
    rows = connection.execute(
        "SELECT t_ms, span_ms, value, counts FROM sample"
        " WHERE tier = ? AND measured_id = ? AND t_ms > ? AND t_ms <= ? ORDER BY t_ms",
        (tier, measured_id, *between_ms),
    ).fetchall()
    if not rows:
        return None
    t_ms, span_ms, value, counts = zip(*rows, strict=True)
    return Stored(
        labels=labels,
        bounds=bounds,
        t_s=np.asarray(t_ms, np.float64) / 1000,
        span_s=np.asarray(span_ms, np.float64) / 1000,
        value=np.asarray(value, np.float64),
        counts=decode_counts(counts, len(bounds) + 1) if bounds else None,
    )
