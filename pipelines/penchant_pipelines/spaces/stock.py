"""What a start finds: the spaces of the record, and the encoders that they are of."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
import structlog

from penchant_pipelines.encoder import Encoder, EncoderSettings
from penchant_pipelines.encoder.adapter import WEIGHTS, open_adapter, read_manifest
from penchant_pipelines.encoder.sentence import BILINGUAL
from penchant_pipelines.errors import InvalidInput, NotFound, WrongState
from penchant_pipelines.interests import Calibration, calibrate
from penchant_pipelines.model import now
from penchant_pipelines.recommend.sequence import FILE as SEQUENCE
from penchant_pipelines.recommend.sequence import SequenceModel
from penchant_pipelines.record import Record, schema
from penchant_pipelines.spaces.space import Space

log = structlog.get_logger(__name__)

BUILDING, STANDBY, LIVE, DROPPING = "building", "standby", "live", "dropping"
ADAPTER_ID = re.compile(r"[^\x00-\x1f\x7f/\\]+")


@dataclass(eq=False, slots=True)
class Adapter:
    """An encoder in memory, and its space where there is one. Times in µs."""

    id: str
    encoder: Encoder
    sequence: SequenceModel | None = None
    sha256: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    load_time: int = field(default_factory=now)
    space: Space | None = None
    begun: bool = False
    """Its space is being built, or about to be."""


@dataclass(frozen=True, slots=True)
class Stock:
    """What the record and the adapter directory offer at the start."""

    adapters: dict[str, Adapter]
    rows: tuple[sa.Row[Any], ...]
    """Rows of `spaces` whose encoder is in memory."""
    live: sa.Row[Any]
    lost: sa.Row[Any] | None
    """The space that was live, if its encoder is gone: all must be brought into `live` before anything is served."""


def take_stock(record: Record, settings: EncoderSettings, folder: Path, home: Encoder) -> Stock:
    """Find the spaces of a record, load their encoders, and say which is live; blocks for seconds.

    Spaces whose encoder can't be loaded any more are marked to be dropped, all but the live one.
    """
    table = schema.spaces
    with record.read() as connection:
        rows = connection.execute(sa.select(table).where(table.c.state != DROPPING).order_by(table.c.key)).all()
    adapters = {"": _own(settings, home)}
    usable: list[int] = []
    live: int | None = None
    lost: int | None = None
    for row in rows:
        if _is_loaded(row, adapters, settings, folder, home):
            usable.append(row.key)
            live = row.key if row.state == LIVE else live
        elif row.state == LIVE:
            lost = row.key
    if lost is None:
        # Begun in place of a live space that was gone, and is back.
        usable = [row.key for row in rows if row.key in usable and (row.state != BUILDING or row.job_id)]
    with record.engine.begin() as connection:
        connection.execute(table.update().where(table.c.key.not_in([*usable, lost or 0])).values(state=DROPPING))
        here = table.c.space_id == home.space_id
        if live is None:
            # A new data folder, or one whose encoder is gone: the settings' own encoder takes over.
            live = connection.execute(sa.select(table.c.key).where(here, table.c.key.in_(usable))).scalar()
            if live is None:
                state = LIVE if lost is None else BUILDING
                values = space_values(home, "", state, None, switches=lost is not None)
                live = connection.execute(table.insert().values(values)).inserted_primary_key[0]  # type: ignore[index]
                usable.append(live)
        connection.execute(table.update().where(here, table.c.key.in_(usable)).values(adapter_id=""))
        for row in connection.execute(sa.select(table).where(table.c.key.in_(usable))).all():
            if row.middle is None or row.similarity is None:
                encoder = next(a.encoder for a in adapters.values() if a.encoder.space_id == row.space_id)
                connection.execute(table.update().where(table.c.key == row.key).values(measure(encoder)))
        found = connection.execute(sa.select(table).where(table.c.key.in_([*usable, lost or 0]))).all()
    by_key = {row.key: row for row in found}
    return Stock(
        adapters,
        tuple(by_key[key] for key in usable),
        by_key[live],
        None if lost is None else by_key[lost],
    )


def _own(settings: EncoderSettings, home: Encoder) -> Adapter:
    """The settings' own encoder, with what the manifest of the adapter in it tells, if there is one."""
    folder = settings.adapter or (None if settings.model else BILINGUAL)
    if folder is None:
        return Adapter("", home)
    manifest = read_manifest(folder)
    return Adapter("", home, _sequence(folder, home), manifest.files[WEIGHTS], manifest.metrics)


def _is_loaded(
    row: sa.Row[Any], adapters: dict[str, Adapter], settings: EncoderSettings, folder: Path, home: Encoder
) -> bool:
    """Bring a space's encoder into memory, if it is to be had as it was."""
    if row.space_id == home.space_id:
        return True
    if not row.adapter_id:
        return False
    try:
        adapter = open_folder(settings, folder, row.adapter_id, home)
    except (NotFound, WrongState) as error:
        if error.reason == "MODEL_UNREADABLE":  # the model's fault, not the adapter's
            raise
        log.warning("adapter.lost", adapter_id=row.adapter_id, why=error.message)
        return False
    if adapter.encoder.space_id != row.space_id:
        log.warning("adapter.lost", adapter_id=row.adapter_id, why="it was replaced by another of the same name")
        return False
    adapters[row.adapter_id] = adapter
    return True


def open_folder(settings: EncoderSettings, folder: Path, adapter_id: str, home: Encoder) -> Adapter:
    """Load an adapter by the name of its folder; blocks for seconds.

    Raises InvalidInput for what is no name, NotFound, or WrongState where it must be refused.
    """
    if not ADAPTER_ID.fullmatch(adapter_id) or adapter_id in (".", ".."):
        raise InvalidInput.at("adapter_id", "must be the name of a folder in the adapter directory, without slashes")
    if settings.adapter is not None:
        raise WrongState("ADAPTERS_STACKED", "encoder.adapter is set, and adapters can't be stacked; unset it")
    path = folder / adapter_id
    if not path.is_dir():
        raise NotFound("adapter", adapter_id)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise WrongState("ADAPTER_UNSAFE", f"adapter {adapter_id!r} is a link that leads out of the adapter directory")
    encoder = open_adapter(settings, path, home)
    manifest = read_manifest(path)
    return Adapter(adapter_id, encoder, _sequence(path, encoder), manifest.files[WEIGHTS], manifest.metrics)


def _sequence(folder: Path, encoder: Encoder) -> SequenceModel | None:
    """The sequence model beside an adapter, if there is one. Raises WrongState where it does not fit."""
    if not (folder / SEQUENCE).is_file():
        return None
    return SequenceModel.load(folder / SEQUENCE, encoder.space_id, encoder.dimensions)


def calibration_of(row: sa.Row[Any]) -> Calibration:
    """What was measured of a space, by its row of `spaces`."""
    return Calibration(row.similarity, np.frombuffer(row.middle, dtype=np.float32))


def space_values(encoder: Encoder, adapter_id: str, state: str, job_id: str | None, switches: bool) -> dict[str, Any]:
    """A new row of `spaces`, of what has yet to be measured."""
    return {
        "space_id": encoder.space_id,
        "adapter_id": adapter_id,
        "dimensions": encoder.dimensions,
        "state": state,
        "job_id": job_id,
        "switches": switches,
    }


def measure(encoder: Encoder) -> dict[str, Any]:
    """What there is to measure of a space, for its row; blocks for seconds."""
    found = calibrate(encoder.encode)
    log.info("space.calibrated", space_id=encoder.space_id, similarity=found.similarity)
    return {"similarity": found.similarity, "middle": found.middle.tobytes()}
