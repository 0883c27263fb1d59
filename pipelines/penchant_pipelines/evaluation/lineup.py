"""Who takes part, and the race itself."""

from __future__ import annotations

import logging
import pickle
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import joblib
import structlog

from penchant_pipelines.encoder import EncoderSettings, open_encoder
from penchant_pipelines.encoder.batching import cores
from penchant_pipelines.engine import EngineSettings
from penchant_pipelines.errors import InvalidInput
from penchant_pipelines.evaluation.baselines_neighbours import Als, EaseForAll, ItemNeighbours, UserNeighbours
from penchant_pipelines.evaluation.baselines_sequences import SequenceBaseline
from penchant_pipelines.evaluation.baselines_simple import Popularity, Random
from penchant_pipelines.evaluation.baselines_vectors import Ewma, LastPost, MeanOfLast
from penchant_pipelines.evaluation.baselines_words import Bm25, Svm, TfidfEwma, Trees
from penchant_pipelines.evaluation.log import Log
from penchant_pipelines.evaluation.methods import Method, Run, run
from penchant_pipelines.evaluation.protocol import Query
from penchant_pipelines.evaluation.replay import Penchant
from penchant_pipelines.evaluation.report import OURS
from penchant_pipelines.evaluation.vector_cache import CachedEncoder


@dataclass(frozen=True, slots=True)
class Entrant:
    """A method by name; `make` gives it from a seed, and `by_chance` says that the seed matters."""

    name: str
    make: Callable[[int], Method]
    by_chance: bool = False


BASELINES = (
    Entrant("sasrec-text", partial(SequenceBaseline, name="sasrec-text", by="text"), by_chance=True),
    Entrant("gru-text", partial(SequenceBaseline, name="gru-text", by="text", body="gru"), by_chance=True),
    Entrant("sasrec", partial(SequenceBaseline, name="sasrec", by="ids"), by_chance=True),
    Entrant("trees", Trees, by_chance=True),
    Entrant("svm", Svm, by_chance=True),
    Entrant("bm25", Bm25),
    Entrant("tfidf", TfidfEwma),
    Entrant("als", Als, by_chance=True),
    Entrant("ease", EaseForAll),
    Entrant("item-knn", ItemNeighbours),
    Entrant("user-knn", UserNeighbours),
    Entrant("ewma", Ewma),
    Entrant("mean-of-last", MeanOfLast),
    Entrant("last-post", LastPost),
    Entrant("popularity-7d", partial(Popularity, days=7)),
    Entrant("popularity-30d", partial(Popularity, days=30)),
    Entrant("popularity", Popularity),
    Entrant("random", Random, by_chance=True),
)
"""The slowest first: one that began last would run on alone."""
UNTUNED = "penchant-untuned"
"""The engine with the encoder as it was before its adapter; takes part where the settings name an adapter."""
NAMES = (OURS, UNTUNED, *(entrant.name for entrant in BASELINES))


def check_names(names: Sequence[str], settings: EncoderSettings) -> None:
    """Raise InvalidInput for a name that is no method's, or that of one which can't take part by these settings."""
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        raise InvalidInput.at("only", f"there is no method {unknown[0]!r}; choose from {', '.join(NAMES)}")
    if UNTUNED in names and settings.adapter is None:
        raise InvalidInput.at("only", f"{UNTUNED!r} is the engine without its adapter: name one, encoder.adapter=…")


def line_up(log: Log, settings: EngineSettings, cache: Path, only: Sequence[str] = ()) -> list[Entrant]:
    """All who take part, or only those named. Raises as `check_names` does."""
    check_names(only, settings.encoder)
    entrants = [_engine(OURS, log, settings, cache)]
    if settings.encoder.adapter is not None:
        plain = settings.encoder.model_copy(update={"adapter": None})
        entrants.append(_engine(UNTUNED, log, settings.model_copy(update={"encoder": plain}), cache))
    return [entrant for entrant in (*entrants, *BASELINES) if not only or entrant.name in only]


def _engine(name: str, log: Log, settings: EngineSettings, cache: Path) -> Entrant:
    encoder = partial(open_cached, settings.encoder, cache)
    return Entrant(name, partial(Penchant, log.catalogue, settings, encoder, name))


def open_cached(settings: EncoderSettings, cache: Path) -> CachedEncoder:
    """Open the encoder behind the cache."""
    return CachedEncoder(open_encoder(settings), cache)


def race(
    log: Log, asked: list[Query], entrants: Sequence[Entrant], seeds: Sequence[int], report: Callable[[int], None]
) -> list[list[Run]]:
    """Run every method through the log on all free cores: once, or where it depends on chance once a seed.

    The runs of each, in the order of entrants and seeds. `report` hears how many have finished.
    """
    starts = [(entrant, seed) for entrant in entrants for seed in (seeds if entrant.by_chance else seeds[:1])]
    workers = joblib.Parallel(n_jobs=min(cores(), len(starts)), return_as="generator_unordered")
    found: dict[tuple[str, int], Run] = {}
    with TemporaryDirectory(prefix="penchant-evaluate-") as folder, warnings.catch_warnings():
        # A worker that holds much more after a method than after its first is replaced; nothing is lost with it.
        warnings.filterwarnings("ignore", "A worker stopped while some jobs were given")
        shared = Path(folder) / "log"
        shared.write_bytes(pickle.dumps((log, asked), pickle.HIGHEST_PROTOCOL))
        jobs = (joblib.delayed(_run)(entrant, shared, seed) for entrant, seed in starts)
        for done, (name, seed, each) in enumerate(workers(jobs), 1):
            found[name, seed] = each
            report(done)
    return [[found[entrant.name, seed] for seed in seeds if (entrant.name, seed) in found] for entrant in entrants]


def _run(entrant: Entrant, shared: Path, seed: int) -> tuple[str, int, Run]:
    # A worker's output is the command's: the engine's log lines would stand among the figures.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    return entrant.name, seed, run(partial(entrant.make, seed), *_shared(shared))


@lru_cache(maxsize=1)
def _shared(path: Path) -> tuple[Log, list[Query]]:
    """Load the log once for all methods that a worker runs: as an argument it would be sent for each, in seconds."""
    found: tuple[Log, list[Query]] = pickle.loads(path.read_bytes())  # noqa: S301 - written by `race`
    return found
