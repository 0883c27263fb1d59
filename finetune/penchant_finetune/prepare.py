"""`prepare`: from a log to a folder that training and evaluation read, and that holds all they depend on.

- prepare.json: settings, counts, digests of the other files
- texts.parquet: every text once
- items.parquet: the catalogue: id, row of its text, creation time
- signals.parquet: users by number, what each signal touches and says, its part of the time line, and in which it was
  taken back
- pairs.parquet: anchor, positive, negative (rows of texts), user, kind
- graded.parquet: pairs of items with a score
- touched.parquet: users by number, and what each wrote or touched in the training part
- base.npy: float32 (t, d): the texts' unit vectors by the base encoder; later texts have none
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pyarrow import parquet
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from penchant_finetune.corpus import VALIDATION, Bools, Corpus, Ints, Split, make_corpus, measurable
from penchant_finetune.log import Log
from penchant_finetune.negatives import mine
from penchant_finetune.pairs import KINDS, Graded, Pairs, Vectors, build_graded, build_pairs, touched
from penchant_pipelines.encoder import Encoder, EncoderSettings, encode_all, open_encoder
from penchant_pipelines.encoder.sentence import file_sha256
from penchant_pipelines.errors import InvalidInput, WrongState
from penchant_pipelines.interests import Calibration, Evidence, InterestSettings, calibrate
from penchant_pipelines.model import Action
from penchant_pipelines.record.reading import mean_direction

MANIFEST = "prepare.json"
FEWEST_PAIRS = 8


class PrepareSettings(BaseModel):
    """How pairs are made from a log."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    split: Split | None = None
    validation_from: float = Field(default=0.8, gt=0, lt=1)
    test_from: float = Field(default=0.9, gt=0, lt=1)
    window_days: float = Field(default=7.0, gt=0, le=36_500)
    negatives: bool = False
    max_pairs: int = Field(default=10_000, ge=FEWEST_PAIRS)
    seed: int = Field(default=0, ge=0)


class Manifest(BaseModel):
    """What a prepared folder was made from and holds."""

    model_config = ConfigDict(extra="forbid")

    format: Literal[7] = 7
    settings: PrepareSettings
    encoder: EncoderSettings
    interests: InterestSettings
    space_id: str
    """Of the base encoder."""
    live_space_id: str
    """Of the encoder that a run must beat: the same, or that of an adapter on it."""
    dimensions: int
    similarity: float
    middle: list[float]
    split: Split
    counts: dict[str, int]
    files: dict[str, str]

    @property
    def calibration(self) -> Calibration:
        """How the base encoder's space reads."""
        return Calibration(self.similarity, np.array(self.middle, dtype=np.float32))


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prepared folder, read."""

    folder: Path
    manifest: Manifest
    texts: list[str]
    items: Ints
    """(m,) rows of `texts`."""
    item_ids: list[str]
    created: Ints
    """(m,) µs, 0 where unknown."""
    signals: dict[str, list[Any]]
    train: Pairs
    graded: Graded
    touched: Ints
    """(n, 2) of user and text."""
    base: Vectors


def prepare(
    log: Log,
    encoder: Encoder,
    encoder_settings: EncoderSettings,
    interests: InterestSettings,
    settings: PrepareSettings,
    folder: Path,
    served: str | None = None,
) -> Manifest:
    """Make a prepared folder.

    `encoder` is the base, `encoder_settings` name what is live, `served` is the id of the record's live space where the
    log is a record's. Raises InvalidInput where the log holds too little to learn from or to measure, WrongState where
    the settings open another space than `served`.
    """
    if settings.validation_from >= settings.test_from:
        raise InvalidInput.at("test_from", f"must be above {settings.validation_from}, where validation begins")
    live = encoder
    # Found from any working directory; links are kept, as their name is part of the space's.
    model = Path(encoder_settings.model)
    if model.name and model.is_dir():
        encoder_settings = encoder_settings.model_copy(update={"model": str(model.absolute())})
    if encoder_settings.adapter is not None:
        encoder_settings = encoder_settings.model_copy(update={"adapter": encoder_settings.adapter.absolute()})
        live = open_encoder(encoder_settings)
    if served not in (None, live.space_id):
        raise WrongState(
            "OTHER_SPACE",
            f"the record's live space is {served}, these settings open {live.space_id}; prepare with the settings that "
            "the server runs with (--config, --set)",
        )
    corpus = make_corpus(log, interests, settings.split, (settings.validation_from, settings.test_from))
    base = np.concatenate([*encode_all(encoder, corpus.texts)])
    calibration = calibrate(encoder.encode).chosen(interests.similarity)
    rows = {value: row for row, value in enumerate(corpus.texts)}

    def text_row(value: str) -> int:
        if value not in rows:
            rows[value] = len(corpus.texts)
            corpus.texts.append(value)
        return rows[value]

    train = build_pairs(corpus, base, calibration, settings.window_days, settings.max_pairs, text_row, settings.seed)
    validated = len(measurable(corpus, VALIDATION))
    if len(train) < FEWEST_PAIRS or not validated:
        raise InvalidInput.at(
            "signals",
            f"give {len(train)} pairs to train and {validated} users to validate by, with new items in that part on a "
            "later day than their first; more signals, a wider window or earlier --validation-from and --test-from "
            "are needed",
        )
    own = touched(corpus)
    if settings.negatives:
        train = mine(train, base, corpus.items, own, settings.seed)
    graded = build_graded(corpus, settings.max_pairs // 4, settings.seed)
    folder.mkdir(parents=True, exist_ok=True)
    tables = {
        "texts": {"text": corpus.texts},
        "items": {
            "id": [item.id for item in log.items],
            "text": corpus.items,
            "created": [item.created for item in log.items],
        },
        "signals": _signal_columns(log, corpus),
        "pairs": _pair_columns(train),
        "graded": {"first": graded.first, "second": graded.second, "user": graded.users, "score": graded.scores},
        "touched": {"user": own[:, 0], "text": own[:, 1]},
    }
    for name, columns in tables.items():
        parquet.write_table(pa.table(columns), folder / f"{name}.parquet")
    np.save(folder / "base.npy", base)
    files = [*(f"{name}.parquet" for name in tables), "base.npy"]
    manifest = Manifest(
        settings=settings,
        encoder=encoder_settings,
        interests=interests,
        space_id=encoder.space_id,
        live_space_id=live.space_id,
        dimensions=encoder.dimensions,
        similarity=calibration.similarity,
        middle=calibration.middle.tolist(),
        split=corpus.split,
        counts=_counts(log, corpus, train, graded),
        files={name: file_sha256(folder / name) for name in files},
    )
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return manifest


def load_prepared(folder: Path) -> Prepared:
    """Read a prepared folder. Raises WrongState where it is none, or was altered."""
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise WrongState(
            "NOT_PREPARED", f"{str(folder)!r} is no prepared folder; make one with `penchant finetune prepare`"
        ) from error
    for name, digest in manifest.files.items():
        if not (folder / name).is_file() or file_sha256(folder / name) != digest:
            raise WrongState("PREPARED_ALTERED", f"{name} in {str(folder)!r} was altered; prepare it anew")
    read = {
        name.removesuffix(".parquet"): parquet.read_table(folder / name).to_pydict()
        for name in manifest.files
        if name.endswith(".parquet")
    }
    pairs = {name: np.array(column, dtype=np.int64) for name, column in read["pairs"].items()}
    graded = {name: np.array(column, dtype=np.int64) for name, column in read["graded"].items() if name != "score"}
    return Prepared(
        folder=folder,
        manifest=manifest,
        texts=read["texts"]["text"],
        items=np.array(read["items"]["text"], dtype=np.int64),
        item_ids=read["items"]["id"],
        created=np.array(read["items"]["created"], dtype=np.int64),
        signals=read["signals"],
        train=Pairs(pairs["anchor"], pairs["positive"], pairs["negative"], pairs["user"], pairs["kind"]),
        graded=Graded(
            graded["first"], graded["second"], graded["user"], np.array(read["graded"]["score"], dtype=np.float64)
        ),
        touched=np.stack([np.array(read["touched"][name], dtype=np.int64) for name in ("user", "text")], axis=1),
        base=np.load(folder / "base.npy"),
    )


def standing(prepared: Prepared, part: int) -> Bools:
    """Signals (n,) up to the end of a part that were not taken back by then."""
    parts, undone_in = (np.array(prepared.signals[name], dtype=np.int8) for name in ("part", "undone_in"))
    stands: Bools = (parts <= part) & (undone_in > part)
    return stands


def evidence(prepared: Prepared, row: int, texts: Vectors, items: Vectors) -> Evidence:
    """A signal as capture would have blended it, of the vectors (t, d) of texts and (m, d) of items."""
    columns = prepared.signals
    item, text, action = columns["item"][row], columns["text"][row], columns["action"][row]
    return Evidence(
        id=columns["id"][row],
        time=columns["time"][row],
        vector=joined(texts[text] if text >= 0 else None, items[item] if item >= 0 else None),
        action=None if action is None else Action(action),
        value=columns["value"][row],
        rating=columns["rating"][row],
        item_id=columns["item_id"][row],
        terms=tuple(columns["terms"][row]),
        language=columns["language"][row],
    )


def joined(written: Vectors | None, item: Vectors | None) -> Vectors | None:
    """What was written joined with what it is about, (d,) float32 of length 1; None where there is neither."""
    if written is None or item is None:
        return item if written is None else written
    return mean_direction(written, item)


def _signal_columns(log: Log, corpus: Corpus) -> dict[str, Any]:
    return {
        "id": [signal.id for signal in log.signals],
        "user": corpus.users,
        "time": corpus.times,
        "item": corpus.item_of,
        # Also of an item that the catalogue lacks: a post about one weighs whatever it says.
        "item_id": [signal.item_id for signal in log.signals],
        "text": corpus.texts_of,
        "terms": pa.array([signal.terms for signal in log.signals], pa.list_(pa.string())),
        "language": [signal.language for signal in log.signals],
        "part": corpus.parts,
        "undone_in": corpus.undone_in,
        "new": corpus.first_touches(),
        "action": pa.array([_number(signal.action) for signal in log.signals], pa.int8()),
        "value": pa.array([signal.value for signal in log.signals], pa.float64()),
        "rating": pa.array([signal.rating for signal in log.signals], pa.float64()),
        "surface": [signal.surface for signal in log.signals],
        "device": [signal.device for signal in log.signals],
    }


def _number(action: Action | None) -> int | None:
    return None if action is None else int(action)


def _pair_columns(pairs: Pairs) -> dict[str, Any]:
    return {
        "anchor": pairs.anchors,
        "positive": pairs.positives,
        "negative": pairs.negatives,
        "user": pairs.users,
        "kind": pairs.kinds,
    }


def _counts(log: Log, corpus: Corpus, train: Pairs, graded: Graded) -> dict[str, int]:
    kinds = {kind: int((train.kinds == number).sum()) for number, kind in enumerate(KINDS)}
    return {
        "items": len(log.items),
        "signals": len(log.signals),
        "users": len(np.unique(corpus.users)),
        "users to validate by": len(measurable(corpus, VALIDATION)),
        "users measured": len(measurable(corpus)),
        "texts": len(corpus.texts),
        **{f"{kind} pairs": count for kind, count in kinds.items()},
        "pairs with a hard negative": int((train.negatives >= 0).sum()),
        "graded pairs": len(graded),
    }
