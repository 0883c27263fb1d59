"""The sequence model at work: from a user's signals so far to where the next ones are to be expected."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from penchant_pipelines.errors import InvalidInput, WrongState
from penchant_pipelines.interests import undone_ids
from penchant_pipelines.interests.evidence import Evidence, weighing
from penchant_pipelines.interests.settings import InterestSettings
from penchant_pipelines.model import MICROS_PER_SECOND, Action

if TYPE_CHECKING:
    from penchant_pipelines.recommend.sequence_network import Batch, Network, Shape

Vectors = NDArray[np.float32]
LATEST = 128
"""How many signals of a user the model looks at: the latest."""
FILE = "sequence.safetensors"
FORMAT = "penchant-sequence-1"


@dataclass(frozen=True, slots=True)
class History:
    """A user's signals, oldest first, as the sequence model reads them.

    `vectors` (n, d) float32 unit rows, `times` (n,) int64 µs, `actions` (n,) int64 with 0 for posts, `weights` (n,)
    float32 signed mass, `contexts` (n, 2) int64 buckets of surface and device.
    """

    vectors: Vectors
    times: NDArray[np.int64]
    actions: NDArray[np.int64]
    weights: NDArray[np.float32]
    contexts: NDArray[np.int64]

    def __post_init__(self) -> None:
        n = len(self.times)
        shapes = [self.vectors.shape[:1], self.actions.shape, self.weights.shape, self.contexts.shape]
        if self.vectors.ndim != 2 or shapes != [(n,), (n,), (n,), (n, 2)]:
            raise InvalidInput.at("history", f"needs {n} rows of vectors, actions, weights and contexts: one a time")
        if (np.diff(self.times) < 0).any():
            raise InvalidInput.at("history.times", "must not fall: sort signals by time")
        if not (np.isfinite(self.vectors).all() and np.isfinite(self.weights).all()):
            raise InvalidInput.at("history", "holds a number that is not finite")

    def __len__(self) -> int:
        """Count the signals."""
        return len(self.times)

    @classmethod
    def of(
        cls,
        events: Sequence[Evidence],
        settings: InterestSettings,
        dimensions: int,
        contexts: Mapping[str, Mapping[str, str]] | None = None,
    ) -> History:
        """Make a history of evidence in order of (time, id); without vector, undone or without weight is left out.

        `contexts` are the signals' contexts by signal id; `surface` and `device` are read from them.
        """
        kept = readable(events, settings)
        known = contexts or {}
        return cls(
            np.array([event.vector for event, _ in kept], dtype=np.float32).reshape(len(kept), dimensions),
            np.array([event.time for event, _ in kept], dtype=np.int64),
            np.array([event.action or 0 for event, _ in kept], dtype=np.int64),
            np.array([weight for _, weight in kept], dtype=np.float32),
            np.array([context_buckets(known.get(event.id, {})) for event, _ in kept], dtype=np.int64).reshape(-1, 2),
        )

    def part(self, start: int, end: int) -> History:
        """Signals from one place up to another."""
        rows = slice(max(start, 0), end)
        return History(
            self.vectors[rows], self.times[rows], self.actions[rows], self.weights[rows], self.contexts[rows]
        )


class SequenceModel:
    """A trained sequence model. Safe to share among threads; the same history gives the same vectors."""

    def __init__(self, network: Network, space_id: str) -> None:
        self.network = network.eval()
        self.space_id = space_id

    @property
    def dimensions(self) -> int:
        """Length of a vector."""
        return self.network.shape.dimensions

    @classmethod
    def load(cls, path: Path, space_id: str, dimensions: int) -> SequenceModel:
        """Load `sequence.safetensors`; blocks. Raises WrongState where it is not whole or made for another space.

        A space id holds the name of the adapter's folder, which says nothing of its vectors; its end, the digest of
        the weights, is what must agree.
        """
        import torch
        from safetensors import SafetensorError, safe_open

        from penchant_pipelines.recommend.sequence_network import Network

        try:
            with safe_open(path, framework="pt") as file:
                about = dict(file.metadata() or {})
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        except (OSError, SafetensorError) as error:
            raise WrongState("SEQUENCE_UNREADABLE", f"{str(path)!r} is no safetensors file: {error}") from error
        shape = _shape(about, path)
        trained_on = about.get("space_id", "")
        if trained_on.rpartition("-")[2] != space_id.rpartition("-")[2] or shape.dimensions != dimensions:
            raise WrongState(
                "SEQUENCE_MISMATCH",
                f"the sequence model {str(path)!r} was trained on {shape.dimensions} dimensions of {trained_on!r}, "
                f"these are {dimensions} of {space_id!r}; train it again on the adapter it is to serve with",
            )
        with torch.device("meta"):
            network = Network(shape)
        try:
            network.load_state_dict(weights, assign=True)
        except RuntimeError as error:
            raise WrongState("SEQUENCE_MISMATCH", f"weights in {str(path)!r} do not fit: {error}") from error
        for name, tensor in weights.items():
            if tensor.dtype is not torch.float32 or not bool(torch.isfinite(tensor).all()):
                raise WrongState("SEQUENCE_MISMATCH", f"{name!r} in {str(path)!r} must be finite float32 numbers")
        return cls(network, space_id)

    def save(self, path: Path) -> None:
        """Write the weights, with sizes and space in the file's header."""
        from safetensors.torch import save_file

        about = {
            "format": FORMAT,
            "space_id": self.space_id,
            "shape": json.dumps(self.network.shape.as_json()),
        }
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.network.state_dict().items()}
        save_file(weights, path, metadata=about)

    def next_vectors(self, history: History) -> Vectors:
        """Where the user's next signals are to be expected: (m, d) float32 unit rows to look up in the item index.

        (0, d) for a user without signals. Reads the latest 128. Raises InvalidInput where vectors are of another size.
        """
        import torch

        if history.vectors.shape[1] != self.dimensions:
            raise InvalidInput.at(
                "history.vectors", f"have {history.vectors.shape[1]} dimensions, the model {self.dimensions}"
            )
        if not len(history):
            return np.zeros((0, self.dimensions), dtype=np.float32)
        with torch.inference_mode():
            batch = to_batch([history])
            last = torch.tensor([[batch.valid.shape[1] - 1]])
            vectors: Vectors = self.network(batch, last)[0, 0].numpy()
        return vectors


def readable(events: Sequence[Evidence], settings: InterestSettings) -> list[tuple[Evidence, float]]:
    """The signals that the model reads, each with its signed mass: not undone, with a vector and a weight."""
    undone = undone_ids(events)
    told = [(event, mass(event, settings)) for event in events if event.id not in undone]
    return [(event, weight) for event, weight in told if weight]


def mass(event: Evidence, settings: InterestSettings) -> float:
    """What a signal says to the model, signed; 0 where it says nothing: it has no vector, or takes another back."""
    if event.vector is None or event.action is Action.UNDO:
        return 0.0
    return weighing(event, settings).weight


def to_batch(histories: Sequence[History]) -> Batch:
    """Histories as one batch: the latest 128 signals of each, padded behind."""
    import torch

    from penchant_pipelines.recommend.sequence_network import Batch

    cut = [history.part(len(history) - LATEST, len(history)) for history in histories]
    lengths = [len(history) for history in cut]

    def padded(parts: Sequence[NDArray[np.generic]]) -> torch.Tensor:
        return torch.nn.utils.rnn.pad_sequence([torch.from_numpy(part) for part in parts], batch_first=True)

    seconds = [history.times / MICROS_PER_SECOND for history in cut]
    return Batch(
        padded([history.vectors for history in cut]),
        padded(seconds),
        padded([history.actions for history in cut]),
        padded([history.weights for history in cut]),
        padded([history.contexts for history in cut]),
        torch.arange(max(lengths))[None, :] < torch.tensor(lengths)[:, None],
    )


def context_buckets(context: Mapping[str, str]) -> tuple[int, int]:
    """Hash buckets of a signal's surface and device, 0 where unknown."""
    return _bucket(context.get("surface", "")), _bucket(context.get("device", ""))


def _bucket(value: str) -> int:
    return zlib.crc32(value.strip().lower().encode()) % 63 + 1 if value.strip() else 0


def _shape(about: Mapping[str, str], path: Path) -> Shape:
    from penchant_pipelines.recommend.sequence_network import Shape

    if about.get("format") != FORMAT:
        raise WrongState("SEQUENCE_UNREADABLE", f"{str(path)!r} is no sequence model of Penchant ({FORMAT})")
    try:
        shape = Shape(**json.loads(about["shape"]))
        sizes = shape.as_json().values()
        sound = all(isinstance(size, int) and 0 < size <= 8192 for size in sizes) and shape.width % shape.heads == 0
    except (KeyError, TypeError, ValueError) as error:
        raise WrongState("SEQUENCE_UNREADABLE", f"{str(path)!r} does not tell its sizes: {error}") from error
    if not sound:
        raise WrongState("SEQUENCE_UNREADABLE", f"{str(path)!r} tells impossible sizes: {about['shape']}")
    return shape
