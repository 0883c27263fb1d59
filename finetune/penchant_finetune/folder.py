"""Folders that are written whole."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from penchant_pipelines.errors import WrongState


@contextmanager
def new_folder(output: Path) -> Iterator[Path]:
    """Give a folder to write into that becomes `output` at the end: it is there whole or not at all.

    Raises WrongState where it holds something already, or by the end.
    """
    if output.exists() and any(output.iterdir()):
        raise WrongState("FOLDER_NOT_EMPTY", f"{str(output)!r} holds something; name a new folder")
    output = output.resolve()
    output.parent.mkdir(parents=True, exist_ok=True)
    # Beside it first: half of it must not stand there as if it were whole.
    with TemporaryDirectory(prefix=f"{output.name}.", suffix=".part", dir=output.parent) as unfinished:
        whole = Path(unfinished) / "whole"
        whole.mkdir()
        yield whole
        for file in whole.iterdir():
            # safetensors writes files that their owner alone may read, and a server has an account of its own.
            file.chmod(whole.stat().st_mode & 0o666)
        try:
            whole.rename(output)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            raise WrongState(
                "FOLDER_NOT_EMPTY", f"{str(output)!r} was filled by somebody else meanwhile; name a new folder"
            ) from error
