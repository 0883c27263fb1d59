"""The life of adapters: loaded, built, kept current beside the live space, switched to, unloaded.

    LOADED ── activate ──▶ BUILDING ──▶ STANDBY ◀── switch ──▶ LIVE
      ▲                       │ cancel     │ unload
      └───────────────────────┘            ▼ gone

The encoder that the settings name has the empty adapter id and is always loaded. What the record must know to go
on after a crash is in its table `spaces`; everything else is made anew at the start.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import sqlalchemy as sa
import structlog

from penchant_pipelines.errors import Unavailable, WrongState
from penchant_pipelines.index import IndexUnavailable, generations
from penchant_pipelines.interests import Blender, Calibration, Recipe
from penchant_pipelines.jobs import Job, Jobs, Progress, no_progress, succeed
from penchant_pipelines.memory import settle
from penchant_pipelines.model import now
from penchant_pipelines.record import nothing, schema
from penchant_pipelines.record.ledger import Ledger
from penchant_pipelines.spaces import experiment as experiments
from penchant_pipelines.spaces.experiment import Experiment
from penchant_pipelines.spaces.reembed import Origin, Reembedding, drop_rows
from penchant_pipelines.spaces.space import Shared, Space
from penchant_pipelines.spaces.stock import (
    BUILDING,
    DROPPING,
    LIVE,
    STANDBY,
    Adapter,
    Stock,
    calibration_of,
    measure,
    open_folder,
    space_values,
)
from penchant_pipelines.tasks import to_the_end

log = structlog.get_logger(__name__)
Result = TypeVar("Result")

ACTIVATE = "activate_adapter"
SWITCH = "switch_adapter"
LOG_EVERY_SECONDS = 5.0
UNWRITABLE_SECONDS = 1.0
"""Pause between attempts to write what must be written."""


class AdapterState(enum.IntEnum):
    """The numbers are those of the contract's `AdapterState`."""

    LOADED = 1
    BUILDING = 2
    STANDBY = 3
    LIVE = 4


@dataclass(frozen=True, slots=True)
class Serving:
    """Which space answers whom, and which are written. Replaced whole: a reader or writer sees one state of it."""

    live: Space
    others: tuple[Space, ...] = ()
    experiment: Experiment | None = None
    trial: Space | None = None

    @property
    def kept(self) -> tuple[Space, ...]:
        """The spaces that every write goes into."""
        return self.live, *self.others

    def of(self, user_id: str) -> Space:
        """The space that serves a user."""
        if self.trial is not None and self.experiment is not None and self.experiment.takes(user_id):
            return self.trial
        return self.live


class Adapters:
    """All adapters and spaces of one engine. Belongs to its event loop."""

    def __init__(
        self,
        stock: Stock,
        shared: Shared,
        jobs: Jobs,
        folder: Path,
        on_lost: Callable[[Space], None],
        on_switched: Callable[[], None],
    ) -> None:
        self._shared = shared
        self._jobs = jobs
        self._folder = folder
        self._on_lost = on_lost
        self._on_switched = on_switched
        self._adapters = stock.adapters
        self._lost = stock.lost
        self._rows = {row.key: row for row in stock.rows}
        self._closing = False
        self._loading = asyncio.Lock()
        # What spaces there are, and which is live, changes in the record first: who looks and then changes holds this.
        self._changing = asyncio.Lock()
        by_space = {adapter.encoder.space_id: adapter for adapter in stock.adapters.values()}
        for row in stock.rows:
            self._open(by_space[row.space_id], row, keeps_profiles=row.state != BUILDING)
        live = self._space(stock.live.key)
        self.serving = Serving(live, tuple(space for space in self._spaces() if space is not live))

    # -- reading ---------------------------------------------------------------------------------------------

    @contextmanager
    def serve(self, user_id: str | None = None) -> Iterator[Space]:
        """The space that serves a user (None: the live one), for as long as one request takes."""
        space = self.serving.live if user_id is None else self.serving.of(user_id)
        with space.in_use():
            yield space

    def all(self) -> list[Adapter]:
        """All adapters in memory, the encoder of the settings first."""
        return [adapter for _, adapter in sorted(self._adapters.items())]

    def state(self, adapter: Adapter) -> AdapterState:
        """Where an adapter stands."""
        if adapter.space is None:
            return AdapterState.BUILDING if adapter.begun else AdapterState.LOADED
        if adapter.space is self.serving.live:
            return AdapterState.LIVE
        return AdapterState.STANDBY if self._rows[adapter.space.key].state == STANDBY else AdapterState.BUILDING

    # -- the life of an adapter ------------------------------------------------------------------------------

    async def load(self, adapter_id: str) -> Adapter:
        """Load an adapter from its folder in the adapter directory; loading it again changes nothing.

        Raises NotFound, WrongState or InvalidInput where it must be refused, Unavailable where it can't be read.
        """

        async def load() -> Adapter:
            async with self._loading:
                if adapter_id not in self._adapters:
                    settings, home = self._shared.encoder, self._adapters[""].encoder
                    adapter = await asyncio.to_thread(open_folder, settings, self._folder, adapter_id, home)
                    self._adapters[adapter_id] = adapter
                    log.info("adapter.loaded", adapter_id=adapter_id, space_id=adapter.encoder.space_id)
                return self._adapters[adapter_id]

        # A caller that doesn't wait for a large model finds it loaded when it asks again.
        return await to_the_end(load())

    async def activate(self, adapter_id: str, standby: bool = False) -> Job:
        """Start the job that brings all into an adapter's space and switches over to it; `standby` leaves out the last.

        Where the space is kept current already the job has ended by the time that this returns.
        Raises WrongState if the adapter is not loaded or another one is being built.
        """
        adapter = self._loaded(adapter_id)
        state = self.state(adapter)
        if state is AdapterState.BUILDING:
            raise WrongState("JOB_RUNNING", f"adapter {adapter_id!r} is being built; wait for the job or cancel it")
        if state is AdapterState.LOADED:
            job_id = self._jobs.new_id()
            # Measuring its encoder comes before there is a space: whoever unloads it meanwhile must hear of it.
            adapter.begun = True
            try:
                # To the end: where it fails it must be told here, whoever has given up waiting.
                return await to_the_end(self._jobs.start(ACTIVATE, self._activation(adapter, standby, job_id), job_id))
            except Exception:
                adapter.begun = False
                raise
        space = adapter.space
        assert space is not None  # noqa: S101 - else it were LOADED or BUILDING

        switch_id = self._jobs.new_id()

        async def switch(progress: Progress) -> None:
            if not standby:
                await self._switch(space, switch_id)
            await progress(1, 1)

        job = await self._jobs.start(SWITCH, switch, switch_id)
        await self._jobs.ended(SWITCH)
        return await self._jobs.get(job.id)

    async def unload(self, adapter_id: str) -> None:
        """Drop an adapter with its space: vectors, profiles, index and weights.

        Raises WrongState if it is not loaded, live, being built or in an experiment.
        """

        async def unload() -> None:
            async with self._changing:
                adapter = self._loaded(adapter_id)
                self._check_idle(adapter)
                space = await self._retire(adapter)
                if adapter_id:
                    del self._adapters[adapter_id]
            if space is not None:
                await self._drop(space)

        await to_the_end(unload())
        settle()

    def _check_idle(self, adapter: Adapter) -> None:
        state = self.state(adapter)
        if state is AdapterState.LIVE:
            raise WrongState("ADAPTER_LIVE", f"adapter {adapter.id!r} is live; activate another one first")
        if state is AdapterState.BUILDING:
            raise WrongState("JOB_RUNNING", f"adapter {adapter.id!r} is being built; cancel the job first")
        if adapter.space is None:
            return
        if any(self.state(each) is AdapterState.BUILDING for each in self.all()):
            raise WrongState(
                "JOB_RUNNING", "another adapter is being built from this one's space; wait or cancel the job"
            )
        if adapter.space is self.serving.trial:
            raise WrongState("EXPERIMENT_RUNNING", f"adapter {adapter.id!r} is in an experiment; stop that first")

    # -- experiments -----------------------------------------------------------------------------------------

    async def start_experiment(self, name: str, adapter_id: str, share: float) -> Experiment:
        """Serve a share (0…1) of the users from the space of a standby adapter from now on."""

        async def start() -> Experiment:
            async with self._changing:
                adapter = self._loaded(adapter_id)
                state = self.state(adapter)
                if state is not AdapterState.STANDBY or adapter.space is None:
                    why = (
                        "serves everybody already; name the one to try"
                        if state is AdapterState.LIVE
                        else "is not kept current; activate it as standby"
                    )
                    raise WrongState("ADAPTER_NOT_STANDBY", f"adapter {adapter_id!r} {why}")
                control = self.serving.live.space_id
                found = Experiment(name, adapter_id, share, control, adapter.space.space_id, now())
                await self._shared.writer.submit(lambda ledger: experiments.begin(ledger, found))
                self.serving = replace(self.serving, experiment=found, trial=adapter.space)
                self._on_switched()
            return found

        return await to_the_end(start())

    async def stop_experiment(self) -> Experiment:
        """Serve everybody from the live space again. Raises WrongState if no experiment runs."""

        async def stop() -> Experiment:
            async with self._changing:
                running = self.serving.experiment
                if running is None:
                    raise WrongState("NO_EXPERIMENT", "no experiment runs")
                await self._shared.writer.submit(experiments.end)
                self.serving = replace(self.serving, experiment=None, trial=None)
                self._on_switched()
            found = await asyncio.to_thread(experiments.find, self._shared.record, running.name)
            return found or running

        return await to_the_end(stop())

    # -- start and stop --------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Finish what a stop or a crash cut off, before anything is served."""
        await self._drop_leftovers()
        live = self.serving.live
        if self._lost is not None:
            lost = self._lost
            log.warning("space.lost", space_id=lost.space_id, adapter_id=lost.adapter_id, now=live.space_id)
            if not live.keeps_profiles:
                await self._build(live, self._origin(lost), _logged())
            await self._switch(live)
            self._lost = None
            await self._drop_leftovers()
        running = await asyncio.to_thread(experiments.find, self._shared.record, "")
        if running is None or running.end_time is not None:
            return
        trial = next((space for space in self.serving.others if space.space_id == running.trial_space_id), None)
        if trial is None or not trial.keeps_profiles or live.space_id != running.control_space_id:
            log.warning("experiment.ended", name=running.name, why="one of its spaces is gone")
            await self._shared.writer.submit(experiments.end)
        else:
            self.serving = replace(self.serving, experiment=running, trial=trial)

    async def resume(self) -> None:
        """Take activations up again that a stop or a crash cut off, as the same jobs."""
        for adapter in self.all():
            if self.state(adapter) is AdapterState.BUILDING and adapter.space is not None:
                row = self._rows[adapter.space.key]
                log.info("adapter.resumed", adapter_id=adapter.id, job_id=row.job_id)
                await self._jobs.start(ACTIVATE, self._activation(adapter, not row.switches, row.job_id), row.job_id)

    def closing(self) -> None:
        """Say that what is cancelled from now on is to be resumed at the next start."""
        self._closing = True

    # -- inside ----------------------------------------------------------------------------------------------

    def _loaded(self, adapter_id: str) -> Adapter:
        adapter = self._adapters.get(adapter_id)
        if adapter is None:
            raise WrongState("ADAPTER_NOT_LOADED", f"adapter {adapter_id!r} is not loaded; load it first")
        return adapter

    def _spaces(self) -> list[Space]:
        return [adapter.space for adapter in self.all() if adapter.space is not None]

    def _space(self, key: int) -> Space:
        return next(space for space in self._spaces() if space.key == key)

    def _open(self, adapter: Adapter, row: sa.Row[Any], keeps_profiles: bool) -> Space:
        adapter.space = Space(
            row.key,
            adapter.id,
            adapter.encoder,
            calibration_of(row).chosen(self._shared.interests.similarity),
            self._shared,
            self._on_lost,
            keeps_profiles,
            adapter.sequence,
        )
        return adapter.space

    def _activation(self, adapter: Adapter, standby: bool, job_id: str) -> Callable[[Progress], Awaitable[None]]:
        async def activate(progress: Progress) -> None:
            try:
                space = adapter.space or await self._begin(adapter, standby, job_id)
                live = self.serving.live
                await self._build(space, Origin(live.key, live.blender), progress)
                await self._build_index(space)
                with contextlib.suppress(asyncio.CancelledError):  # too late: it is done
                    await to_the_end(self._set_standby(space, job_id) if standby else self._switch(space, job_id))
            except BaseException:
                # The server's stop is no cancellation: the next start goes on from here.
                if not self._closing:
                    await to_the_end(self._give_up(adapter, job_id))
                raise

        return activate

    async def _begin(self, adapter: Adapter, standby: bool, job_id: str) -> Space:
        """Open the space of an adapter; from here on every write goes into it."""
        submit = self._shared.writer.submit
        # Before it is measured: a start after a kill or a stop finds what was begun.
        await to_the_end(submit(partial(_note_begun, adapter, standby, job_id)))
        measured = await asyncio.to_thread(measure, adapter.encoder)

        async def begin() -> Space:
            row = await submit(partial(_note_measured, job_id, measured))
            self._rows[row.key] = row
            self._shared.keeper.catalog.add_space(row.key, row.dimensions)
            space = self._open(adapter, row, keeps_profiles=False)
            self.serving = replace(self.serving, others=(*self.serving.others, space))
            return space

        return await to_the_end(begin())

    async def _build(self, space: Space, origin: Origin, progress: Progress) -> None:
        await Reembedding(space, origin, self._shared, progress).run()

    async def _build_index(self, space: Space) -> None:
        """Build and audit the index; a space whose index can't be built is searched exactly until it can."""
        await space.relay.start()
        try:
            await space.relay.rebuild(no_progress)
            sound = await space.relay.audit()
        except IndexUnavailable as error:
            log.warning("index.unavailable", space_id=space.space_id, error=str(error))
            self._on_lost(space)
            return
        if not sound:
            raise WrongState("INDEX_UNSOUND", "the index of the new space does not hold what it should")

    async def _set_standby(self, space: Space, job_id: str) -> None:
        await self._set_states({space.key: STANDBY}, job_id=job_id)

    async def _switch(self, space: Space, job_id: str = "") -> None:
        """Make a space the live one, for readers and writers at once; the former one stays, kept current.

        Raises WrongState if its adapter was unloaded meanwhile.
        """
        async with self._changing:
            former = self.serving.live
            if former is space and self._lost is None:
                return
            if space not in self.serving.kept:
                raise WrongState(
                    "ADAPTER_NOT_LOADED", f"adapter {space.adapter_id!r} was unloaded meanwhile; load it again"
                )
            left = former.space_id if self._lost is None else self._lost.space_id
            states = {space.key: LIVE}
            if former is not space:
                states[former.key] = STANDBY
            if self._lost is not None:
                states[self._lost.key] = DROPPING
            await self._set_states(states, end_experiments=True, job_id=job_id)
            others = tuple(other for other in (former, *self.serving.others) if other is not space)
            self.serving = Serving(space, others)
            self._on_switched()
            if former is not space:
                self._shared.mixes.outgrow()
        log.info("space.switched", space_id=space.space_id, former=left)

    async def _set_states(self, states: dict[int, str], end_experiments: bool = False, job_id: str = "") -> None:
        table = schema.spaces

        def update(ledger: Ledger) -> Callable[[], dict[int, sa.Row[Any]]]:
            for key, state in states.items():
                change = table.update().where(table.c.key == key).values(state=state, job_id=None, switches=False)
                ledger.connection.execute(change)
            if end_experiments:
                experiments.end(ledger)
            if job_id:
                succeed(ledger, job_id)
            rows = ledger.connection.execute(sa.select(table).where(table.c.key.in_(states))).all()
            return lambda: {row.key: row for row in rows}

        self._rows |= await self._shared.writer.submit(update)

    async def _insist(self, work: Callable[[], Awaitable[Result]]) -> Result | None:
        """Do what must be written, as soon as the record can be; a stop leaves it to the next start."""
        while not self._closing:
            try:
                return await work()
            except Unavailable:
                await asyncio.sleep(UNWRITABLE_SECONDS)
        return None

    async def _give_up(self, adapter: Adapter, job_id: str) -> None:
        """Drop what a job built."""

        async def retire() -> Space | None:
            async with self._changing:
                return await self._retire(adapter)

        space = await self._insist(retire)
        if space is None:
            await self._insist(lambda: self._shared.writer.submit(partial(_forget_begun, job_id)))
        else:
            await self._drop(space)

    async def _retire(self, adapter: Adapter) -> Space | None:
        """Take the space of an adapter out of service, if it has one."""
        space = adapter.space
        if space is not None:
            await self._set_states({space.key: DROPPING})
            others = tuple(other for other in self.serving.others if other is not space)
            self.serving = replace(self.serving, others=others)
        adapter.space, adapter.begun = None, False
        return space

    async def _drop(self, space: Space) -> None:
        """Delete all that is a retired space's own."""
        await space.close()
        self._shared.keeper.catalog.drop_space(space.key)
        await self._insist(lambda: self._delete(space.key))
        try:
            await space.relay.drop_unknown()
        except IndexUnavailable as error:
            log.warning("index.unavailable", space_id=space.space_id, error=str(error))
            self.serving.live.relay.tidy_later()

    async def _drop_leftovers(self) -> None:
        """Delete what is left of spaces that are gone."""
        table = schema.spaces

        def read() -> Sequence[int]:
            with self._shared.record.read() as connection:
                return connection.execute(sa.select(table.c.key).where(table.c.state == DROPPING)).scalars().all()

        for key in await asyncio.to_thread(read):
            await self._delete(key)

    async def _delete(self, key: int) -> None:
        await drop_rows(
            self._shared,
            key,
            schema.profiles,
            schema.signal_vectors,
            schema.item_vectors,
            schema.steering_vectors,
        )

        def delete(ledger: Ledger) -> Callable[[], None]:
            ledger.connection.execute(schema.spaces.delete().where(schema.spaces.c.key == key))
            return generations.forget(ledger, key)

        await self._shared.writer.submit(delete)
        self._rows.pop(key, None)

    def _origin(self, row: sa.Row[Any]) -> Origin:
        """A space whose encoder is gone, as the origin of the users' words."""
        settings = self._shared.interests
        if row.middle is None:
            # Lost before its middle was measured, maybe even before its θ was needed: it is seen from the origin.
            present = self.serving.live.blender.calibration.similarity
            measured = Calibration(row.similarity or present, np.zeros(row.dimensions, np.float32))
        else:
            measured = calibration_of(row)
        calibration = measured.chosen(settings.similarity)
        return Origin(row.key, Blender(Recipe(settings, calibration, row.space_id)))


def _note_begun(adapter: Adapter, standby: bool, job_id: str, ledger: Ledger) -> Callable[[], None]:
    """Write the space that a job is to build."""
    values = space_values(adapter.encoder, adapter.id, BUILDING, job_id, switches=not standby)
    ledger.connection.execute(schema.spaces.insert().values(values))
    return nothing


def _note_measured(job_id: str, values: dict[str, Any], ledger: Ledger) -> Callable[[], sa.Row[Any]]:
    """Write what was measured of the space that a job builds, and give its row."""
    its_own = schema.spaces.c.job_id == job_id
    ledger.connection.execute(schema.spaces.update().where(its_own).values(values))
    row = ledger.connection.execute(sa.select(schema.spaces).where(its_own)).one()
    return lambda: row


def _forget_begun(job_id: str, ledger: Ledger) -> Callable[[], None]:
    """Forget the space of a job that has put nothing into it."""
    ledger.connection.execute(schema.spaces.delete().where(schema.spaces.c.job_id == job_id))
    return nothing


def _logged() -> Progress:
    """Progress for the log, now and then."""
    last = 0

    async def progress(done: int, total: int) -> None:
        nonlocal last
        if now() - last > LOG_EVERY_SECONDS * 1e6 or done == total:
            last = now()
            log.info("space.building", done=done, total=total)

    return progress
