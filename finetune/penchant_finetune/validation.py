"""Next items of the validation part: the figures that say which state of a run is the best."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from sentence_transformers.base.evaluation import BaseEvaluator

from penchant_finetune.corpus import VALIDATION
from penchant_finetune.next_items import METRICS, Asked, encode_signals, measure, questions
from penchant_finetune.prepare import Prepared
from penchant_pipelines.encoder import Encoder
from penchant_pipelines.errors import InvalidInput
from penchant_pipelines.interests import calibrate

if TYPE_CHECKING:
    from sentence_transformers.base.model import BaseModel

METRIC = "recall@50"
TIES = "ndcg@10"
"""Decides among states that find as many: in a catalogue of a few dozen items nearly all are among the first 50."""
CHOICE = "choice"
"""Name of the figure that orders states by METRIC, then by TIES."""
SATURATED = 0.95
"""METRIC of the untuned encoder above which it tells hardly any states apart."""
COLLAPSED = 0.8
"""Share of the untuned encoder's METRIC below which the last state of a run has lost what that knew."""
_TIE = 1e-6
USERS = 150
"""Most users asked about: it is done again and again while training."""
ITEMS = 2000
"""Items ranked, unless the users touched more: a sample of the catalogue tells two states of one encoder apart."""


class NextItems(BaseEvaluator):
    """Figures of next items on the validation part, by the encoder whose model is being trained, by name.

    Raises InvalidInput where the part holds nothing to ask for.
    """

    def __init__(self, prepared: Prepared, encoder: Encoder) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._encoder = encoder
        rng = np.random.default_rng(prepared.manifest.settings.seed)
        asked = questions(prepared, VALIDATION)
        if not asked.questions:
            raise InvalidInput.at("signals", "leave nothing to validate by: earlier --validation-from is needed")
        users = set(rng.permutation(sorted(asked.signals))[:USERS].tolist())
        chosen = Asked(
            {user: rows for user, rows in asked.signals.items() if user in users},
            [question for question in asked.questions if question.user in users],
        )
        self._prepared, self._asked = _with_fewer_items(prepared, chosen, rng)

    def __call__(
        self, model: BaseModel, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        """Figures of the model's present state."""
        training = model.training
        model.eval()
        rows = np.concatenate(list(self._asked.signals.values()))
        vectors = encode_signals(self._prepared, rows, self._encoder)
        chosen = self._prepared.manifest.interests.similarity
        by_user = measure(self._prepared, self._asked, vectors, calibrate(self._encoder.encode).chosen(chosen))
        model.train(training)
        means = dict(zip(METRICS, np.mean(list(by_user.values()), axis=0).tolist(), strict=True))
        return {METRIC: means[METRIC], TIES: means[TIES], CHOICE: means[METRIC] + _TIE * means[TIES]}


def _with_fewer_items(prepared: Prepared, asked: Asked, rng: np.random.Generator) -> tuple[Prepared, Asked]:
    """The catalogue cut to what the users touched and a sample of the rest, and the questions by its new rows."""
    item_of = np.array(prepared.signals["item"], dtype=np.int64)
    touched = np.unique(item_of[np.concatenate(list(asked.signals.values()))])
    others = rng.permutation(np.setdiff1d(np.arange(len(prepared.items)), touched))
    kept = np.sort(np.concatenate([touched[touched >= 0], others[: max(ITEMS - len(touched), 0)]]))
    place = np.full(len(prepared.items) + 1, -1)
    place[kept] = np.arange(len(kept))
    fewer = replace(
        prepared,
        items=prepared.items[kept],
        item_ids=[prepared.item_ids[row] for row in kept],
        created=prepared.created[kept],
        signals={**prepared.signals, "item": place[item_of].tolist()},
    )
    moved = [replace(each, new=place[each.new], asked=place[each.asked]) for each in asked.questions]
    return fewer, replace(asked, questions=moved)
