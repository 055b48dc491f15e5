"""The file that holds the elements of the tensors that are kept."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from serving_agent.contract.inspection import VALUES


class ValuesFile:
    """Takes elements one tensor after the other, up to a bound; the file has its name only once it is whole.

    Everything raises OSError where the disk is full.
    """

    def __init__(self, folder: Path, keep_bytes: int) -> None:
        self._path = folder / VALUES
        self._part = self._path.with_suffix(".part")
        self._left = keep_bytes
        self._offset = 0
        self._file = self._part.open("wb", buffering=1 << 20)

    def add(self, data: memoryview | bytes) -> int | None:
        """Append *data* and return where it begins; None where there is no room left for it."""
        size = len(data)
        if size > self._left:
            return None
        self._file.write(data)
        offset, self._offset, self._left = self._offset, self._offset + size, self._left - size
        return offset

    def finish(self) -> None:
        """Write what is left and give the file its name."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._part.replace(self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._file.closed:
            with contextlib.suppress(OSError):  # what is buffered does not fit on the disk: it is not wanted
                self._file.close()
        self._part.unlink(missing_ok=True)
