"""Files that other programs read while we write them: each is there whole, old or new."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


def write(path: Path, data: bytes, mode: int) -> None:
    """Put the file in place in one step, never readable by more than `mode` allows, on the disk. Raises
    OSError.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # O_EXCL, 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


def write_if_changed(path: Path, data: bytes, mode: int) -> None:
    """As `write`, but leaves a file alone that holds this already. Raises OSError."""
    try:
        if path.read_bytes() == data:
            return
    except OSError:
        pass
    write(path, data, mode)
