from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext

from penchant_finetune.log import live_encoder
from penchant_pipelines.encoder import EncoderSettings
from penchant_pipelines.errors import WrongState
from penchant_pipelines.record import Record, schema
from penchant_pipelines.record.record import MIGRATIONS, is_damage, is_read_only

SINCE_0017 = (
    "ALTER TABLE steerings DROP COLUMN sign",
    "ALTER TABLE steerings DROP COLUMN taken_back",
    "ALTER TABLE mixes DROP COLUMN space",
)
"""What takes back what later versions added."""


def test_migrations_make_the_very_schema(tmp_path: Path) -> None:
    record = Record(tmp_path)
    try:
        with record.engine.connect() as connection:
            context = MigrationContext.configure(
                connection, opts={"compare_type": True, "compare_server_default": True}
            )
            assert compare_metadata(context, schema.metadata) == []
            # Alembic does not compare AUTOINCREMENT, which keeps the outbox's numbers from being given twice.
            made: dict[str, str] = dict(
                connection.execute(sa.text("SELECT name, sql FROM sqlite_master WHERE type = 'table'")).all()
            )
            assert "AUTOINCREMENT" in made["outbox"]
    finally:
        record.close()


def test_a_record_of_the_first_version_is_brought_up_with_what_it_holds(tmp_path: Path) -> None:
    tmp_path.joinpath("old").mkdir()
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'old' / 'record.sqlite3'}")
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    with engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO users VALUES (1, 'ann', 1, 0, 0, '', 'r', x'')"))
        connection.execute(sa.text("INSERT INTO steerings VALUES (1, 1, 5, 'tea', '[]', x'00', 1, 0, 0.5)"))
    engine.dispose()
    record = Record(tmp_path / "old")
    try:
        with record.read() as connection:
            row = connection.execute(sa.select(schema.steerings)).one()
            assert (row.topic, row.interest_id, row.muted, row.bias) == ("tea", "", True, 0.5)
    finally:
        record.close()


def test_vectors_and_profiles_of_an_older_record_move_into_its_one_space(tmp_path: Path) -> None:
    """All that a later version must find: made here as the version before wrote it."""
    tmp_path.joinpath("old").mkdir()
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'old' / 'record.sqlite3'}")
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
    blob = np.arange(4, dtype=np.float32).tobytes()
    with engine.begin() as connection:
        for statement, values in (
            ("INSERT INTO spaces VALUES ('old-space', 4, 0.3, 1)", [{}]),
            ("INSERT INTO generations VALUES ('g-1', 'old-space', 7, 1)", [{}]),
            ("INSERT INTO users VALUES (:key, :name, 1, 1, 5, 's', 'r', :blob)", [
                {"key": 11, "name": "ann", "blob": b"profile"}, {"key": 12, "name": "bob", "blob": b""},
            ]),
            ("INSERT INTO signals VALUES (:seq, :id, 11, 5, x'00', NULL, '', 't', '', NULL, NULL, '', '{}', 'en', "
             "'[]', :blob, 0, 0)", [
                {"seq": 1, "id": "read", "blob": blob}, {"seq": 2, "id": "waits", "blob": None},
            ]),
            ("INSERT INTO items VALUES ('film', 'T', '', '[]', NULL, '{}', 0, 'en', '[]', :blob)", [{"blob": blob}]),
            ("INSERT INTO steerings VALUES (3, 11, 5, 'tea', '[]', :blob, 1, 0, 0.5, '')", [{"blob": blob}]),
        ):  # fmt: skip
            connection.execute(sa.text(statement), values)
    engine.dispose()
    record = Record(tmp_path / "old")
    try:
        with record.read() as connection:
            space = connection.execute(sa.select(schema.spaces)).one()
            assert (space.space_id, space.adapter_id, space.state, space.similarity) == ("old-space", "", "live", 0.3)
            assert space.middle is None
            moved = {
                table.name: sorted(tuple(row) for row in connection.execute(sa.select(table)))
                for table in (schema.signal_vectors, schema.item_vectors, schema.steering_vectors, schema.profiles)
            }
            assert moved == {
                "signal_vectors": [(1, space.key, blob), (2, space.key, None)],
                "item_vectors": [("film", space.key, blob)],
                "steering_vectors": [(3, space.key, blob)],
                "profiles": [(11, space.key, "r", b"profile"), (12, space.key, "r", b"")],
            }
            generation = ("g-1", space.key, 7, False, True, "", 0, 0)
            assert connection.execute(sa.select(schema.generations)).one() == generation
            assert connection.execute(sa.select(schema.signals.c.id, schema.signals.c.text)).all() == [
                ("read", "t"),
                ("waits", "t"),
            ]
        # What is erased goes from every space.
        with record.engine.begin() as connection:
            connection.execute(schema.signals.delete())
            connection.execute(schema.steerings.delete())
            connection.execute(schema.users.delete())
            for table in (schema.signal_vectors, schema.steering_vectors, schema.profiles):
                assert connection.execute(sa.select(table)).all() == []
    finally:
        record.close()


def test_chances_that_meant_something_else_are_forgotten(tmp_path: Path) -> None:
    record = Record(tmp_path)
    mix = {"id": "m", "create_time": 0, "weights": "{}", "chance": "[-3, 1]", "favour_count": 1, "lesson_count": 1}
    with record.engine.begin() as connection:
        connection.execute(schema.mixes.insert().values(quality=0, quality_before=0, live=True, **mix))
        for step in (*SINCE_0017, "UPDATE alembic_version SET version_num = '0016'"):
            connection.execute(sa.text(step))
    record.close()
    record = Record(tmp_path)
    try:
        with record.read() as connection:
            row = connection.execute(sa.select(schema.mixes)).one()
            assert (row.id, row.chance, row.live) == ("m", None, True)
    finally:
        record.close()


def test_what_was_left_unread_while_its_item_was_away_waits_for_it(tmp_path: Path) -> None:
    record = Record(tmp_path)
    with record.engine.connect() as connection:
        for statement in (
            "DROP INDEX signals_awaiting_item",
            "ALTER TABLE mixes DROP COLUMN writer_weights",
            *SINCE_0017,
            "UPDATE alembic_version SET version_num = '0014'",
            "INSERT INTO users VALUES (1, 'ann', 3, 3, 0, '')",
            "INSERT INTO items VALUES ('here', 'T', '', '[]', NULL, '{}', 0, 'en', '[]', '[]')",
        ):
            connection.execute(sa.text(statement))
        for seq, (item_id, vector) in enumerate([("gone", None), ("gone", b"read"), ("here", None), ("", None)]):
            values = {"seq": seq, "id": f"s{seq}", "user_key": 1, "time": 0, "digest": b"", "item_id": item_id}
            values |= dict.fromkeys(("text", "given_language", "attribution_token", "language"), "")
            values |= {"context": "{}", "terms": "[]", "awaits_item": False, "undone": False}
            connection.execute(schema.signals.insert().values(values))
            connection.execute(schema.signal_vectors.insert().values(seq=seq, space=1, vector=vector))
        connection.commit()
    record.close()
    record = Record(tmp_path)
    try:
        with record.read() as connection:
            query = sa.select(schema.signals.c.seq).where(schema.signals.c.awaits_item)
            assert connection.execute(query).scalars().all() == [0]
    finally:
        record.close()


def test_opening_again_keeps_what_was_written(tmp_path: Path) -> None:
    record = Record(tmp_path)
    secret = record.secret("receipts")
    assert len(secret) == 32
    record.close()
    again = Record(tmp_path)
    try:
        assert again.secret("receipts") == secret
        assert again.secret("other") != secret
    finally:
        again.close()


@pytest.mark.parametrize("name", ["what?", "50%20", "#1", "数据"])
def test_a_data_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    record = Record(tmp_path / name)
    record.close()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name / "record.sqlite3").stat().st_size > 0
    assert live_encoder(tmp_path / name, EncoderSettings()) == (EncoderSettings(), None)


def test_a_secret_is_made_while_another_writes(tmp_path: Path) -> None:
    record = Record(tmp_path)

    def write(numbers: range) -> None:
        for number in numbers:
            record.secret(f"secret-{number}")

    try:
        with ThreadPoolExecutor() as pool:
            list(pool.map(write, (range(start, start + 25) for start in (0, 25, 50, 75))))
    finally:
        record.close()


def test_a_record_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    record = Record(tmp_path)
    with record.engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    record.close()
    for _ in range(2):  # the folder must not stay locked
        with pytest.raises(WrongState) as raised:
            Record(tmp_path)
        assert raised.value.reason == "RECORD_TOO_NEW"
    untouched = sa.create_engine(f"sqlite:///{tmp_path / 'record.sqlite3'}")
    with untouched.connect() as connection:
        assert connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar() == "9999"
    untouched.dispose()


@pytest.mark.parametrize("emptied", [True, False])
def test_a_used_folder_whose_record_is_gone_is_no_new_one(tmp_path: Path, emptied: bool) -> None:
    database = tmp_path / "record.sqlite3"
    # A first start that was cut off begins once more.
    database.touch()
    Record(tmp_path).close()
    (tmp_path / "index").mkdir()
    Record(tmp_path).close()
    if emptied:
        database.write_bytes(b"")
    else:
        database.unlink()
    for _ in range(2):
        with pytest.raises(WrongState, match="missing or empty") as raised:
            Record(tmp_path)
        assert raised.value.reason == "RECORD_GONE"
    assert database.exists() == emptied


def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "record.sqlite3")) as foreign:
        foreign.execute("CREATE TABLE songs (name)")
    with pytest.raises(WrongState, match="something else") as raised:
        Record(tmp_path)
    assert raised.value.reason == "RECORD_FOREIGN"
    with closing(sqlite3.connect(tmp_path / "record.sqlite3")) as foreign:
        assert foreign.execute("SELECT name FROM sqlite_master").fetchall() == [("songs",)]


@pytest.mark.parametrize(("generation", "owed"), [("g-forgotten", 1), ("g-live", 0)])
def test_what_was_noted_of_a_forgotten_generation_goes(tmp_path: Path, generation: str, owed: int) -> None:
    Record(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / "record.sqlite3")) as older, older:
        older.execute("INSERT INTO generations (name, space, cursor, live, recipe) VALUES ('g-live', 1, 0, 1, 'r')")
        older.execute("INSERT INTO indexed_interests VALUES (?, 1, 'i-1', x'00')", (generation,))
        older.execute("INSERT INTO receipts VALUES ('r-1', 0, 'd', 1, 1, 1)")
        for step in (*SINCE_0017, "UPDATE alembic_version SET version_num = '0017'"):
            older.execute(step)
    record = Record(tmp_path)
    try:
        with record.read() as connection:
            noted = connection.execute(sa.select(schema.indexed_interests.c.generation)).scalars().all()
            assert noted == ["g-live"] * (1 - owed)
            assert connection.execute(sa.select(schema.receipts.c.purged)).scalar() is not bool(owed)
    finally:
        record.close()


def test_a_folder_has_one_owner(tmp_path: Path) -> None:
    record = Record(tmp_path)
    try:
        with pytest.raises(WrongState) as raised:
            Record(tmp_path)
        assert raised.value.reason == "DATA_FOLDER_LOCKED"
    finally:
        record.close()
    Record(tmp_path).close()


def test_a_folder_that_cant_be_written_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    (tmp_path / "file").touch()
    for folder in (tmp_path, tmp_path / "file" / "below"):
        with pytest.raises(WrongState, match="must belong to the account") as raised:
            Record(folder)
        assert raised.value.reason == "DATA_FOLDER_UNWRITABLE"


def test_a_file_that_may_not_be_written_is_no_damaged_one(tmp_path: Path) -> None:
    Record(tmp_path).close()
    with (
        closing(sqlite3.connect(f"{(tmp_path / 'record.sqlite3').as_uri()}?mode=ro", uri=True)) as reading,
        pytest.raises(sqlite3.OperationalError) as raised,
    ):
        reading.execute("DELETE FROM users")
    assert (is_read_only(raised.value), is_damage(raised.value)) == (True, False)


def test_what_is_written_is_synced_and_what_is_erased_is_overwritten(tmp_path: Path) -> None:
    record = Record(tmp_path / "100%")  # a percent sign is special in alembic's configuration
    try:
        with record.read() as connection:
            pragmas = {
                name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("journal_mode", "synchronous", "foreign_keys", "secure_delete")
            }
        assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "secure_delete": 1}
    finally:
        record.close()
