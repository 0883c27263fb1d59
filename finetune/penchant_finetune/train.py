"""`train`: LoRA on the base encoder, from a prepared folder.

A run's folder holds adapter/ (PEFT's format), run.json (settings, seed, versions, how it went), tensorboard/, and
checkpoints/ that an interrupted run is resumed from.
"""

from __future__ import annotations

import importlib.metadata
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from datasets import Dataset
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from torch.utils.tensorboard import SummaryWriter
from transformers import EarlyStoppingCallback, PrinterCallback, set_seed
from transformers.integrations.integration_utils import TensorBoardCallback
from transformers.trainer_utils import get_last_checkpoint
from transformers.utils import logging as transformers_logging

from penchant_finetune.base import open_base
from penchant_finetune.lora import add_lora, load_lora, save_lora
from penchant_finetune.losses import GradedLoss, UserAwareRankingLoss
from penchant_finetune.pairs import Pairs
from penchant_finetune.precision import has_bfloat16
from penchant_finetune.prepare import MANIFEST, Prepared
from penchant_finetune.validation import CHOICE, METRIC, NextItems
from penchant_pipelines.encoder.batching import cores
from penchant_pipelines.encoder.sentence import file_sha256
from penchant_pipelines.errors import InvalidInput, WrongState

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

ADAPTER = "adapter"
RUN = "run.json"
CHECKPOINTS = "checkpoints"
EVALUATIONS = 5
"""How often in a run the validation part is asked, at most."""
PATIENCE = 2
"""Evaluations without a better state after which a run stops."""
_METRIC, _CHOICE = f"eval_{METRIC}", f"eval_{CHOICE}"


class TrainSettings(BaseModel):
    """How a run trains."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = 0
    epochs: float = Field(default=4.0, gt=0)
    batch_size: int = Field(default=256, ge=2)
    tokens_in_memory: int = Field(default=8192, ge=1)
    learning_rate: float = Field(default=2e-3, gt=0)
    temperature: float = Field(default=0.05, gt=0)
    rank: int = Field(default=16, ge=1, le=1024)
    dropout: float = Field(default=0.05, ge=0, lt=1)
    matryoshka: tuple[int, ...] = ()
    bf16: bool | None = None
    """Compute in bfloat16; None: where the hardware has it."""
    threads: int = Field(default=0, ge=0)
    control: Literal["random-pairs"] | None = None


class Run(BaseModel):
    """What a finished run was, for whoever evaluates, exports or repeats it."""

    model_config = ConfigDict(extra="forbid")

    settings: TrainSettings
    prepared: str
    """Sha256 of the manifest of the prepared folder."""
    base: str
    processes: int
    steps: int
    best_step: int
    """The step whose weights were kept; 0: none was better than the untuned encoder, which was kept."""
    untuned_recall: float
    best_recall: float
    """Of next items on the validation part, as `validation.NextItems` counts it; NDCG@10 decides among equals."""
    seconds: float
    versions: dict[str, str]


def train(prepared: Prepared, settings: TrainSettings, folder: Path) -> Run:
    """Train an adapter; an interrupted run of the same settings goes on from its last checkpoint.

    Raises WrongState where the folder holds a run of other settings, or the base encoder is not the one prepared for.
    """
    started = time.monotonic()
    encoder, model = open_base(prepared.manifest.encoder)
    if settings.bf16 is None:
        settings = settings.model_copy(update={"bf16": has_bfloat16(model.device.type)})
    earlier = folder / "settings.json"
    described = settings.model_dump_json(indent=2, exclude={"threads"})
    if earlier.exists() and earlier.read_text(encoding="utf-8") != described:
        raise WrongState("OTHER_RUN", f"{str(folder)!r} holds a run of other settings; choose another folder")
    if encoder.space_id != prepared.manifest.space_id:
        raise WrongState(
            "OTHER_SPACE",
            f"the folder was prepared for the encoder {prepared.manifest.space_id}, the settings open "
            f"{encoder.space_id}; prepare it anew",
        )
    if any(length > encoder.dimensions for length in settings.matryoshka):
        raise InvalidInput.at("matryoshka", f"must not exceed the model's {encoder.dimensions} dimensions")
    folder.mkdir(parents=True, exist_ok=True)
    earlier.write_text(described, encoding="utf-8")
    # The encoder set one thread for short passes that run side by side; here one long pass has all cores.
    torch.set_num_threads(settings.threads or cores())
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    set_seed(settings.seed)
    add_lora(model, settings.rank, settings.dropout)
    validation = NextItems(prepared, encoder)
    untuned = validation.untuned()
    trainer = _trainer(model, prepared, settings, folder, validation)
    checkpoints = folder / CHECKPOINTS
    last = get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None  # type: ignore[no-untyped-call]
    trainer.train(resume_from_checkpoint=last)
    asked = {int(entry["step"]): entry for entry in trainer.state.log_history if _CHOICE in entry}
    best = max(asked, key=lambda step: (asked[step][_CHOICE], -step))
    better = asked[best][_CHOICE] > untuned[CHOICE]
    if not better:
        _forget(model)
    run = Run(
        settings=settings,
        prepared=file_sha256(prepared.folder / MANIFEST),
        base=encoder.space_id,
        processes=trainer.args.world_size,
        steps=trainer.state.global_step,
        best_step=best if better else 0,
        untuned_recall=untuned[METRIC],
        best_recall=asked[best][_METRIC] if better else untuned[METRIC],
        seconds=round(time.monotonic() - started, 1),
        versions={name: importlib.metadata.version(name) for name in ("torch", "peft", "sentence-transformers")},
    )
    if trainer.is_world_process_zero():
        save_lora(model, folder / ADAPTER)
        (folder / RUN).write_text(run.model_dump_json(indent=2) + "\n", encoding="utf-8")
    # Threads of a process group that are left to the interpreter's end may abort the process there.
    trainer.accelerator.end_training()
    return run


def load_run(folder: Path) -> Run:
    """Read a finished run. Raises WrongState where there is none."""
    try:
        return Run.model_validate_json((folder / RUN).read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise WrongState(
            "NO_RUN", f"{str(folder)!r} holds no finished run; make one with `penchant finetune train`"
        ) from error


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
    pairs = prepared.train
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
        settings.matryoshka,
    )
    grading = GradedLoss(model, settings.tokens_in_memory, settings.matryoshka)
    with_negative = pairs.negatives >= 0
    data = {
        "pairs": _pairs_data(prepared.texts, pairs.take(np.flatnonzero(~with_negative))),
        "triplets": _pairs_data(prepared.texts, pairs.take(np.flatnonzero(with_negative))),
    }
    losses: dict[str, torch.nn.Module] = {"pairs": ranking, "triplets": ranking, "graded": grading}
    if settings.control is None:
        data["graded"] = _graded_data(prepared)
    data = {name: part for name, part in data.items() if len(part)}
    together = settings.batch_size * _processes()
    steps = sum(-(-len(part) // together) for part in data.values()) * settings.epochs
    every = max(1, int(steps / EVALUATIONS))
    trainer = AdapterTrainer(
        model=model,
        args=_arguments(model, settings, folder, every),
        train_dataset=data,
        evaluator=validation,
        loss={name: losses[name] for name in data},
        callbacks=[EarlyStoppingCallback(early_stopping_patience=PATIENCE)],
    )
    # It prints every line of the log; TensorBoard has them, and the command tells how it ended.
    trainer.remove_callback(PrinterCallback)
    if trainer.is_world_process_zero():
        writer = SummaryWriter(str(folder / "tensorboard"))
        trainer.add_callback(TensorBoardCallback(writer))  # type: ignore[no-untyped-call]
    return trainer


def _processes() -> int:
    """How many processes train together: `accelerate launch` and torchrun tell each."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def _forget(model: SentenceTransformer) -> None:
    """Take back what the LoRA layers learnt: with B at zero they change nothing."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.zero_()


def _arguments(
    model: SentenceTransformer, settings: TrainSettings, folder: Path, every: int
) -> SentenceTransformerTrainingArguments:
    prompt = model.prompts.get(model.default_prompt_name or "", "")
    on_cpu = model.device.type == "cpu"
    return SentenceTransformerTrainingArguments(
        output_dir=str(folder / CHECKPOINTS),
        report_to="none",
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        warmup_steps=0.1,
        bf16=bool(settings.bf16),
        use_cpu=on_cpu,
        ddp_backend="gloo" if on_cpu and _processes() > 1 else None,
        seed=settings.seed,
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
        logging_steps=every,
        load_best_model_at_end=True,
        metric_for_best_model=_CHOICE,
        greater_is_better=True,
        prompts=prompt or None,
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
