"""The record: an SQLite database in the data folder, the truth from which all else can be rebuilt."""

from __future__ import annotations

import itertools
import secrets as random_bytes
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import structlog
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from filelock import FileLock, Timeout
from sqlalchemy import Connection, Engine, create_engine, event

from penchant_pipelines.errors import WrongState
from penchant_pipelines.record import schema

log = structlog.get_logger(__name__)

MIGRATIONS = Path(__file__).parent / "migrations"
FILE = "record.sqlite3"
INDEX = "index"
"""Folder beside the record, of what is made of it."""
BUSY_MS = 10_000
"""How long who wants to write waits for another who writes."""
BEGIN = "begin"
"""Execution option: the statement that begins a transaction."""


class Record:
    """Owns a data folder: an exclusive lock on it, and the database with its migrations applied.

    What it makes is its owner's alone (0700, 0600); the modes of what it finds are left as they are.
    Raises WrongState where another process holds the folder, where the database is newer than this version or none of
    Penchant's, or where it is gone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Opened and closed in whichever thread is free: the lock belongs to the process.
        self._lock = FileLock(folder / "lock", thread_local=False)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock.acquire(blocking=False)
        except Timeout:
            raise WrongState(
                "DATA_FOLDER_LOCKED",
                f"another server works on the data folder {str(folder)!r}; stop it or choose another with --data",
            ) from None
        except OSError as error:
            raise WrongState(
                "DATA_FOLDER_UNWRITABLE",
                f"the data folder {str(folder)!r} can't be written ({error.strerror}): it must belong to the account "
                "that runs the server",
            ) from error
        database = folder / FILE
        self.engine = _engine(database)
        self._rewriting: Any = None
        try:
            if is_gone(folder):
                raise WrongState(
                    "RECORD_GONE",
                    f"there was a record in {str(folder)!r}, and {FILE} is missing or empty: put a backup of it "
                    f"into an empty folder and start with that; to begin anew, remove the folder {INDEX}",
                )
            database.touch(mode=0o600)  # SQLite gives the files beside it the same mode
            migrate(self.engine)
            # What was erased before a crash may lie in the log yet.
            self.truncate_log()
        except Exception:
            self.close()
            raise

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a consistent view of what is committed; blocks for the queries made in it."""
        with self.engine.connect() as connection:
            yield connection

    def secret(self, name: str) -> bytes:
        """32 random bytes that belong to this data folder, made on first use."""
        # Who begins by reading is refused at once where another writes meanwhile; this waits its turn.
        with self.engine.execution_options(**{BEGIN: "BEGIN IMMEDIATE"}).begin() as connection:
            table = schema.secrets
            found = connection.execute(sa.select(table.c.value).where(table.c.name == name)).scalar()
            if found is None:
                found = random_bytes.token_bytes(32)
                connection.execute(table.insert().values(name=name, value=found))
            return bytes(found)

    def numbers(self) -> Iterator[int]:
        """Numbers for signals to come; none is given twice while they last, though the newest be erased."""
        with self.engine.connect() as connection:
            newest = connection.execute(sa.select(sa.func.max(schema.signals.c.seq))).scalar()
        return itertools.count((newest or 0) + 1)

    def rewriting_needs(self) -> tuple[int, int]:
        """Bytes that `rewrite` needs on the disk of the data folder, and how many are free there."""
        return 2 * (self.folder / FILE).stat().st_size, shutil.disk_usage(self.folder).free

    def rewrite(self) -> None:
        """Write the whole database anew; blocks, and nobody may write meanwhile.

        SQLite overwrites a row that is deleted, but not the copies that were left behind when it moved between pages.
        Needs room for two more of it in the data folder, for as long as it takes.
        """
        folder = str(self.folder.absolute()).replace("'", "''")
        with self.engine.connect() as connection:
            self._rewriting = connection.connection.dbapi_connection
            try:
                # Else what users wrote would lie in the system's folder for temporary files. The variable for it is
                # read when the library is loaded, so that this, deprecated as it is, is the only way.
                self._rewriting.execute(f"PRAGMA temp_store_directory = '{folder}'")
                self._rewriting.execute("VACUUM")
            finally:
                self._rewriting = None

    def interrupt(self) -> None:
        """Break off a `rewrite` that is under way, from any thread: it raises, and the database is as it was."""
        if (rewriting := self._rewriting) is not None:
            rewriting.interrupt()

    def truncate_log(self) -> bool:
        """Fold the write-ahead log into the database and empty it, so that erased rows stay nowhere.

        False where somebody is reading or writing: it is not emptied then, and nobody is made to wait.
        """
        with self.engine.connect() as connection:
            driver: Any = connection.connection.dbapi_connection
            try:
                driver.execute("PRAGMA busy_timeout = 0")
                busy, _, _ = driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                driver.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        return not busy

    def close(self) -> None:
        """Close the database and let go of the folder."""
        self.engine.dispose()
        self._lock.release()


def is_gone(folder: Path) -> bool:
    """Whether a data folder holds what is made of a record, and no record."""
    database = folder / FILE
    return (folder / INDEX).is_dir() and not (database.is_file() and database.stat().st_size)


def is_damage(error: BaseException | None) -> bool:
    """Whether SQLite says that a file is damaged, or no database: not that it is locked, or the disk full."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def is_read_only(error: BaseException | None) -> bool:
    """Whether SQLite says that a file may not be written."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_READONLY


def reading_uri(path: Path) -> str:
    """SQLite's address of a database for reading alone, beside a server or without one; nothing is left behind."""
    # Of a server that was stopped in good order there is no log: reading must not leave one of another owner's.
    mode = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "immutable=1"
    return f"{path.absolute().as_uri()}?{mode}"


def migrate(engine: Engine) -> None:
    """Bring the database to this version's schema."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    tables = sa.inspect(engine).get_table_names()
    if tables and "alembic_version" not in tables:
        raise WrongState(
            "RECORD_FOREIGN", f"{engine.url.database!r} is a database of something else: choose another data folder"
        )
    with engine.connect() as connection:
        found = MigrationContext.configure(connection).get_current_revision()
    wanted, begun = ScriptDirectory.from_config(config).get_current_head(), time.monotonic()
    outdated = found not in (None, wanted)
    if outdated:
        log.info("record.migrating", found=found, wanted=wanted)
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise WrongState(
                "RECORD_TOO_NEW",
                f"the data folder was written by another version of Penchant ({error}): run that one, or start this "
                "one on a backup of before",
            ) from error
    if outdated:
        log.info("record.migrated", seconds=round(time.monotonic() - begun, 1))


def _engine(path: Path) -> Engine:
    engine = create_engine(
        # Not as a text: a folder's name may hold what means something in a URL.
        sa.URL.create("sqlite", database=str(path)),
        connect_args={"check_same_thread": False},
        pool_size=8,
        max_overflow=24,
        # Parameters hold what users wrote; errors and logs must not.
        hide_parameters=True,
    )

    @event.listens_for(engine, "connect")
    def _configure(connection, _record):  # type: ignore[no-untyped-def]
        # SQLAlchemy begins transactions itself (below); the driver's own guesswork would commit before DDL.
        connection.isolation_level = None
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
            f"busy_timeout = {BUSY_MS}",
            # Erased rows are overwritten, not only unlinked.
            "secure_delete = ON",
            "cache_size = -65536",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get(BEGIN, "BEGIN"))

    return engine
