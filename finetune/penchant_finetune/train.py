"""`train`: LoRA on the base encoder, from a prepared folder."""

from __future__ import annotations

import importlib.metadata
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from torch.utils.tensorboard import SummaryWriter
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.integrations.integration_utils import TensorBoardCallback
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import ExportableState, TrainerControl
from transformers.utils import logging as transformers_logging

from penchant_finetune.base import open_base
from penchant_finetune.lora import add_lora, load_lora, save_lora
from penchant_finetune.losses import GradedLoss, UserAwareRankingLoss
from penchant_finetune.pairs import Pairs
from penchant_finetune.prepare import MANIFEST, Prepared
from penchant_finetune.run import ADAPTER, Begun, Run, TrainSettings, begun, held, is_first, processes, write
from penchant_finetune.validation import CHOICE, METRIC, NextItems
from penchant_pipelines.encoder.adapter import WEIGHTS
from penchant_pipelines.encoder.batching import cores
from penchant_pipelines.encoder.sentence import file_sha256, prompt_of
from penchant_pipelines.errors import InvalidInput, WrongState
from penchant_pipelines.precision import has_bfloat16

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

CHECKPOINTS = "checkpoints"
EVALUATIONS = 5
"""About how often in a run the validation part is asked."""
PATIENCE = 2
"""Evaluations without a better state after which a run stops."""
LOG_EVERY = 5
"""Steps between two figures of the loss."""
_METRIC, _CHOICE = f"eval_{METRIC}", f"eval_{CHOICE}"


Report = Callable[[int, int], object]
"""Takes how many steps are done, and of how many."""


def _to_nobody(_done: int, _total: int) -> None: ...


def train(prepared: Prepared, settings: TrainSettings, folder: Path, report: Report = _to_nobody) -> Run:
    """Train an adapter; an interrupted run goes on from its last checkpoint, of a finished one nothing is done anew.

    Raises WrongState where the folder holds a run of other settings or of another prepared folder, or one that another
    number of processes began, another `train` works on it, or the base encoder is not the one prepared for.
    """
    with held(folder):
        found = begun(folder, settings, prepared)
        return found if isinstance(found, Run) else _train(prepared, settings, folder, found, report)


def _train(prepared: Prepared, settings: TrainSettings, folder: Path, found: Begun | None, report: Report) -> Run:
    started = time.monotonic()
    encoder, model = open_base(prepared.manifest.encoder)
    if encoder.space_id != prepared.manifest.space_id:
        raise WrongState(
            "OTHER_SPACE",
            f"the folder was prepared for the encoder {prepared.manifest.space_id}, the settings open "
            f"{encoder.space_id}; prepare it anew",
        )
    if any(length > encoder.dimensions for length in settings.matryoshka):
        raise InvalidInput.at("matryoshka", f"must not exceed the encoder's {encoder.dimensions} dimensions")
    if settings.bf16 is None:
        bf16 = found.settings.bf16 if found else has_bfloat16(model.device.type)
        settings = settings.model_copy(update={"bf16": bf16})
    begins = Begun(settings=settings, prepared=file_sha256(prepared.folder / MANIFEST), processes=processes())
    if is_first() and found is None:
        write(begins, folder)
    # The encoder set one thread for short passes that run side by side; here one long pass has all cores.
    torch.set_num_threads(settings.threads or cores())
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    set_seed(settings.seed)
    add_lora(model, settings.rank, settings.dropout)
    last = last_checkpoint(folder / CHECKPOINTS)
    state = _state(last) if last else None
    before = _kept(state, Clock)["seconds"] if state else 0.0
    trainer = _trainer(model, prepared, settings, folder, NextItems(prepared, encoder))
    if is_first():
        trainer.add_callback(Steps(report))
    # Where nothing was learnt yet, the first state asked is the untuned encoder, by the arithmetic of all others.
    trainer.args.eval_on_start = state is None
    if state is None or not _kept(state, TrainerControl)["should_training_stop"]:
        trainer.train(resume_from_checkpoint=None if last is None else str(last))
        state = trainer.state
    asked = {int(entry["step"]): entry for entry in state.log_history if _CHOICE in entry}
    best = max(asked, key=lambda step: (asked[step][_CHOICE], -step))
    run = Run(
        **dict(begins),
        base=encoder.space_id,
        steps=state.global_step,
        best_step=best,
        untuned_recall=asked[0][_METRIC],
        best_recall=asked[best][_METRIC],
        last_recall=asked[max(asked)][_METRIC],
        seconds=round(before + time.monotonic() - started, 1),
        versions={name: importlib.metadata.version(name) for name in ("torch", "peft", "sentence-transformers")},
    )
    if is_first():
        if best:
            load_lora(model, folder / CHECKPOINTS / f"checkpoint-{best}")
        else:
            _forget(model)
        save_lora(model, folder / ADAPTER)
        write(run, folder)
    accelerator = trainer.accelerator
    del trainer
    # What wraps the model goes before the process group: as the group's last owner it would wait, letting nobody else
    # into the interpreter, for a worker that wants into it to let go of what it gathered (pytorch/pytorch#56297).
    accelerator.free_memory()
    # Threads of a process group that are left to the interpreter's end may abort the process there.
    accelerator.end_training()
    return run


def last_checkpoint(folder: Path) -> Path | None:
    """Find the newest checkpoint that is whole and remove newer ones, which a crash cut short; None where none is."""
    found = sorted(folder.glob("checkpoint-[0-9]*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    for path in found:
        if _is_whole(path):
            return path
        if is_first():
            shutil.rmtree(path)
    return None


def _is_whole(checkpoint: Path) -> bool:
    try:
        _state(checkpoint)  # written last
    except (OSError, ValueError):
        return False
    return all((checkpoint / name).is_file() for name in (WEIGHTS, "optimizer.pt", "scheduler.pt"))


def _state(checkpoint: Path) -> TrainerState:
    state: TrainerState = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
    return state


def _kept(state: TrainerState, kind: type) -> dict[str, Any]:
    """What a checkpoint's state holds of one of the parts that take part in a run."""
    parts: Any = state.stateful_callbacks
    found: dict[str, Any] = parts[kind.__name__]["args"]
    return found


class Clock(TrainerCallback, ExportableState):
    """How long a run took, in seconds: kept with its checkpoints, so that an interrupted one counts on."""

    def __init__(self, seconds: float = 0.0) -> None:
        self._before, self._started = seconds, time.monotonic()

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"args": {"seconds": self._before + time.monotonic() - self._started}, "attributes": {}}


class Steps(TrainerCallback):
    """Tells how far a run is."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_more: object
    ) -> None:
        """Tell it after each step."""
        self._report(state.global_step, state.max_steps)


class AdapterTrainer(SentenceTransformerTrainer):
    """Trains LoRA layers: checkpoints hold them alone."""

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Leave the library's model card out: an adapter gets one of its own when it is exported."""

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        save_lora(self._unwrapped(), Path(output_dir or self.args.output_dir or "."))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_lora(self._unwrapped(), Path(resume_from_checkpoint))

    def _unwrapped(self) -> SentenceTransformer:
        model: SentenceTransformer = self.accelerator.unwrap_model(self.model)
        return model


def _trainer(
    model: SentenceTransformer, prepared: Prepared, settings: TrainSettings, folder: Path, validation: NextItems
) -> AdapterTrainer:
    # The whole is what is served and measured, whatever it may be cut to.
    pairs, lengths = prepared.train, sorted({prepared.manifest.dimensions, *settings.matryoshka}, reverse=True)
    if settings.control == "random-pairs":
        order = np.random.default_rng(settings.seed).permutation(len(pairs))
        pairs = replace(pairs, positives=pairs.positives[order], negatives=np.full(len(pairs), -1))
    ranking = UserAwareRankingLoss(
        model,
        prepared.touched,
        np.stack([pairs.anchors, pairs.positives, pairs.negatives], axis=1),
        len(prepared.texts),
        settings.temperature,
        settings.tokens_in_memory,
        lengths,
    )
    grading = GradedLoss(model, settings.tokens_in_memory, lengths)
    with_negative = pairs.negatives >= 0
    data = {
        "pairs": _pairs_data(prepared.texts, pairs.take(np.flatnonzero(~with_negative))),
        "triplets": _pairs_data(prepared.texts, pairs.take(np.flatnonzero(with_negative))),
    }
    losses: dict[str, torch.nn.Module] = {"pairs": ranking, "triplets": ranking, "graded": grading}
    if settings.control is None:
        data["graded"] = _graded_data(prepared)
    data = {name: part for name, part in data.items() if len(part)}
    together = settings.batch_size * processes()
    steps = sum(-(-len(part) // together) for part in data.values()) * settings.epochs
    every = max(1, int(steps / EVALUATIONS))
    trainer = AdapterTrainer(
        model=model,
        args=_arguments(model, settings, folder, every),
        train_dataset=data,
        evaluator=validation,
        loss={name: losses[name] for name in data},
        callbacks=[EarlyStoppingCallback(early_stopping_patience=PATIENCE), Clock()],
    )
    # It prints every line of the log; TensorBoard has them, and the command tells how it ended.
    trainer.remove_callback(PrinterCallback)
    if trainer.is_world_process_zero():
        writer = SummaryWriter(str(folder / "tensorboard"))
        trainer.add_callback(TensorBoardCallback(writer))  # type: ignore[no-untyped-call]
    return trainer


def _forget(model: SentenceTransformer) -> None:
    """Take back what the LoRA layers learnt: at zero they change nothing."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # A as well: what ran away may be no number there, which no zero takes back.
            if ".lora_" in name:
                parameter.zero_()


def _arguments(
    model: SentenceTransformer, settings: TrainSettings, folder: Path, every: int
) -> SentenceTransformerTrainingArguments:
    on_cpu = model.device.type == "cpu"
    return SentenceTransformerTrainingArguments(
        # Checkpoints name each other by this: a run may go on from elsewhere.
        output_dir=str((folder / CHECKPOINTS).resolve()),
        report_to="none",
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        warmup_steps=0.1,
        bf16=bool(settings.bf16),
        use_cpu=on_cpu,
        ddp_backend="gloo" if on_cpu and processes() > 1 else None,
        seed=settings.seed,
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
        logging_steps=min(LOG_EVERY, every),
        restore_callback_states_from_checkpoint=True,
        metric_for_best_model=_CHOICE,
        greater_is_better=True,
        prompts=prompt_of(model) or None,
        disable_tqdm=True,
    )


def _pairs_data(texts: list[str], pairs: Pairs) -> Dataset:
    """Columns anchor, positive and, where all have one, negative; labels as the loss reads them."""
    columns = {"anchor": pairs.anchors, "positive": pairs.positives}
    if len(pairs) and (pairs.negatives >= 0).all():
        columns["negative"] = pairs.negatives
    label = np.stack([pairs.users, *columns.values()], axis=1)
    return Dataset.from_dict(
        {**{name: [texts[row] for row in rows] for name, rows in columns.items()}, "label": label.tolist()}
    )


def _graded_data(prepared: Prepared) -> Dataset:
    graded = prepared.graded
    return Dataset.from_dict(
        {
            "first": [prepared.texts[row] for row in graded.first],
            "second": [prepared.texts[row] for row in graded.second],
            "score": graded.scores,
        }
    )
