"""A copy of what a data folder holds that can't be made anew, beside a running server or without one."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from penchant_pipelines.encoder.settings import ADAPTERS
from penchant_pipelines.errors import Conflict, Unavailable, WrongState
from penchant_pipelines.record.record import FILE, is_damage, reading_uri


@dataclass(frozen=True, slots=True)
class Backup:
    """What was copied: the record's size, and the names of the adapters."""

    record_bytes: int
    adapters: tuple[str, ...]


def back_up(data: Path, target: Path) -> Backup:
    """Copy the record as it stands at one moment, and the folder of adapters, into a new folder for its owner alone.

    Nobody who writes is held up. The folder is there whole or not at all. Raises Conflict where it is there already,
    WrongState where there is no record or a damaged one, or the folder would lie within the data, Unavailable where the
    record can't be read, OSError where the copy can't be written.
    """
    record = data / FILE
    if not record.is_file():
        raise WrongState("NO_RECORD", f"{str(data)!r} is no data folder: it holds no {FILE}")
    if target.resolve().is_relative_to(data.resolve()):
        raise WrongState("BACKUP_INSIDE", f"{str(target)!r} lies in the data folder itself; name one outside of it")
    if target.exists():
        raise Conflict("BACKUP_EXISTS", f"{str(target)!r} is there already, and nothing is overwritten; name a new one")
    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside it first: half a backup must not stand there as if it were whole.
    with TemporaryDirectory(prefix=f"{target.name}.", suffix=".part", dir=target.parent) as unfinished:
        whole = Path(unfinished) / "whole"
        whole.mkdir(mode=0o700)
        _copy_record(record, whole / FILE)
        names: list[str] = []
        if (data / ADAPTERS).is_dir():
            # What is being exported is no adapter yet; nor is this copy, where somebody wants it there.
            shutil.copytree(data / ADAPTERS, whole / ADAPTERS, ignore=shutil.ignore_patterns("*.part"))
            names = sorted(path.name for path in (whole / ADAPTERS).iterdir() if path.is_dir())
        found = Backup((whole / FILE).stat().st_size, tuple(names))
        whole.rename(target)
    return found


def _without_index(copy: sqlite3.Connection) -> None:
    """Have the copy know of no index: where it is put back beside a newer one, that must not be trusted."""
    tables = {name for (name,) in copy.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    with copy:
        for table in sorted({"generations", "indexed_interests"} & tables):
            copy.execute(f"DELETE FROM {table}")  # noqa: S608 - one of these two


def _copy_record(record: Path, copy: Path) -> None:
    copy.touch(mode=0o600)
    changed = record.stat().st_mtime_ns
    uri = reading_uri(record)
    try:
        with closing(sqlite3.connect(uri, uri=True)) as source, closing(sqlite3.connect(copy)) as target:
            # All pages in one step: they belong to one moment, and what is written meanwhile stays in the log.
            source.backup(target)
            _without_index(target)
        with closing(sqlite3.connect(reading_uri(copy), uri=True)) as made:
            found = str(made.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise Unavailable("NOT_BACKED_UP", f"{record} can't be copied: {error}") from error
        found = str(error)
    if found != "ok":
        raise WrongState("RECORD_DAMAGED", f"{record} is damaged ({found}): nothing was kept of it")
    if uri.endswith("immutable=1") and record.stat().st_mtime_ns != changed:
        raise Unavailable("NOT_BACKED_UP", "a server was started while the record was copied; try again")
