"""A run's folder: who works on it, what it was begun with and how it went.

- adapter/: LoRA layers in PEFT's format
- checkpoints/: what an interrupted run goes on from
- tensorboard/: losses and figures
- settings.json: what it was begun with
- run.json: the same and how it went, once it is finished
- sequence.safetensors, sequence.json: the model of users' next signals, where one was asked for
- evaluation.json: how it was measured to do
- lock: of whoever trains there
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from penchant_finetune.prepare import MANIFEST, Prepared
from penchant_pipelines.encoder.sentence import file_sha256
from penchant_pipelines.errors import WrongState

ADAPTER = "adapter"
RUN = "run.json"
BEGUN = "settings.json"
LOCK = "lock"


class TrainSettings(BaseModel):
    """How a run trains."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(default=0, ge=0, lt=2**32)
    epochs: float = Field(default=4.0, gt=0, allow_inf_nan=False)
    batch_size: int = Field(default=256, ge=2)
    tokens_in_memory: int = Field(default=8192, ge=1)
    learning_rate: float = Field(default=2e-3, gt=0, allow_inf_nan=False)
    temperature: float = Field(default=0.05, gt=0, allow_inf_nan=False)
    rank: int = Field(default=16, ge=1, le=1024)
    dropout: float = Field(default=0.05, ge=0, lt=1)
    matryoshka: tuple[Annotated[int, Field(ge=1)], ...] = ()
    bf16: bool | None = None
    """Compute in bfloat16; None: as the run was begun, else where the hardware has it."""
    threads: int = Field(default=0, ge=0)
    control: Literal["random-pairs"] | None = None


class Begun(BaseModel):
    """What a run was begun with: whoever goes on with it must bring the same."""

    model_config = ConfigDict(extra="forbid")

    settings: TrainSettings
    prepared: str
    """Sha256 of the manifest of the prepared folder."""
    processes: int
    """How many train together: a batch is as many times as large."""


class Run(Begun):
    """What a finished run was, for whoever evaluates, exports or repeats it."""

    base: str
    steps: int
    best_step: int
    """The step whose weights were kept; 0: none was better than the untuned encoder, which was kept."""
    untuned_recall: float
    best_recall: float
    """Of next items on the validation part, as `validation.NextItems` counts it; NDCG@10 decides among equals."""
    last_recall: float | None = None
    """The same of the last state that was asked; None in runs of former versions."""
    seconds: float
    """Of all calls that took part, what an interrupted one did after its last checkpoint left out."""
    versions: dict[str, str]


def load_run(folder: Path) -> Run:
    """Read a finished run. Raises WrongState where there is none."""
    try:
        return Run.model_validate_json((folder / RUN).read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise WrongState(
            "NO_RUN", f"{str(folder)!r} holds no finished run; make one with `penchant finetune train`"
        ) from error


def run_of(prepared: Prepared, folder: Path) -> Run:
    """Read a finished run. Raises WrongState where there is none, or it was not trained from this prepared folder."""
    run = load_run(folder)
    check_prepared(run, prepared, folder)
    return run


def check_prepared(run: Begun, prepared: Prepared, folder: Path) -> None:
    """Raise WrongState where a run was not begun from this prepared folder."""
    if run.prepared != file_sha256(prepared.folder / MANIFEST):
        raise WrongState("OTHER_PREPARED", f"{str(folder)!r} was not trained from {str(prepared.folder)!r}")


def begun(folder: Path, settings: TrainSettings, prepared: Prepared) -> Begun | None:
    """What a folder holds: a `Run` where it is finished, None where nothing was begun.

    Raises WrongState where it was begun with other settings (threads and an unset bf16 aside), from another prepared
    folder, or can't be read; or isn't finished and was begun by another number of processes.
    """
    try:
        if (folder / RUN).is_file():
            found: Begun = Run.model_validate_json((folder / RUN).read_text(encoding="utf-8"))
        elif (folder / BEGUN).is_file():
            found = Begun.model_validate_json((folder / BEGUN).read_text(encoding="utf-8"))
        else:
            return None
    except ValidationError as error:
        raise WrongState(
            "OTHER_RUN", f"{str(folder)!r} holds a run of another version; choose another folder"
        ) from error
    check_prepared(found, prepared, folder)
    free = {"threads"} if settings.bf16 is not None else {"threads", "bf16"}
    then, now = found.settings.model_dump(), settings.model_dump(exclude=free)
    if not isinstance(found, Run):
        then, now = then | {"processes": found.processes}, now | {"processes": processes()}
    check_settings(then, now, folder)
    return found


def check_settings(then: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """Raise WrongState where a run was begun with others of these settings."""
    differ = [name for name in now if now[name] != then[name]]
    if differ:
        named = ", ".join(f"{name.replace('_', '-')} was {then[name]}, is {now[name]}" for name in differ)
        raise WrongState(
            "OTHER_RUN",
            f"{str(folder)!r} holds a run of other settings ({named}); give the same or choose another folder",
        )


def write(state: Begun, folder: Path) -> None:
    """Write what a run was begun with, or what it was; whoever reads finds all of it or nothing."""
    file = folder / (RUN if isinstance(state, Run) else BEGUN)
    whole = file.with_suffix(".new")
    whole.write_text(state.model_dump_json(indent=2) + "\n", encoding="utf-8")
    whole.replace(file)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Make a run's folder and keep it to oneself; of several processes that train together the first does.

    Raises WrongState where another run holds it.
    """
    if not is_first():
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise WrongState(
            "RUN_LOCKED", f"another `train` works on {str(folder)!r}; wait for it or choose another folder"
        ) from None
    try:
        yield
    finally:
        # Where it was refused nothing is begun. While it is held: whoever came behind would lose the folder otherwise.
        if [path.name for path in folder.iterdir()] == [LOCK]:
            shutil.rmtree(folder)
        lock.release()


def processes() -> int:
    """How many processes train together: `accelerate launch` and torchrun tell each."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this process is the only one or the first of those that train together."""
    return os.environ.get("RANK", "0") == "0"
