"""`jobs` and `reindex`; and jobs as other commands show them: how far they are, and how they ended."""

from __future__ import annotations

import time
from itertools import islice
from typing import Annotated

import typer

from penchant.cli.errors import fail
from penchant.cli.options import DEFAULT_SERVER, Commands, Json, Server, connect
from penchant.cli.output import print_json, print_line, print_table, progress
from penchant.client import Client
from penchant.v1.admin_service_pb2 import JOB_STATE_CANCELLED, JOB_STATE_RUNNING, JOB_STATE_SUCCEEDED, Job, JobState

POLL_SECONDS = 0.5

Wait = Annotated[bool, typer.Option("--wait", help="Wait until the job has ended, and show how far it is.")]


def register(app: Commands) -> None:
    """Add the commands."""
    app.command()(jobs)
    app.command()(reindex)


def jobs(
    limit: Annotated[int, typer.Option("-n", min=0, help="Most jobs to list; 0 for all.")] = 20,
    cancel: Annotated[str | None, typer.Option("--cancel", metavar="ID", help="Stop this job instead.")] = None,
    server: Server = DEFAULT_SERVER,
    as_json: Json = False,
) -> None:
    """List long jobs, newest first: adapters activated, mixes learnt, indexes rebuilt. Or stop one that runs."""
    with connect(server) as client:
        if cancel is not None:
            job = client.cancel_job(cancel)
            if job.state == JOB_STATE_CANCELLED:
                _print_job(job, as_json)
            else:  # it came to its end before it could be stopped
                show_job(job, as_json)
            return
        found = list(islice(client.jobs(), limit or None))
    if as_json:
        for job in found:
            print_json(job)
        return
    print_table(
        ("id", "kind", "state", "progress", "created", "ended", "error"),
        [(j.id, j.kind, _state(j), _progress(j), j.create_time, j.end_time, j.error.message) for j in found],
        empty="no jobs so far",
    )


def reindex(wait: Wait = False, server: Server = DEFAULT_SERVER, as_json: Json = False) -> None:
    """Rebuild the vector index from the record, beside the live one, which answers meanwhile."""
    with connect(server) as client:
        job = client.rebuild_index()
        show_job(followed(client, job, "rebuilding") if wait else job, as_json)


def followed(client: Client, job: Job, doing: str) -> Job:
    """Wait for a job and show how far it is."""
    with progress(doing, job.total_count or None, counted=True) as moved:
        while job.state == JOB_STATE_RUNNING:
            time.sleep(POLL_SECONDS)
            job = client.job(job.id)
            moved(job.done_count, total=job.total_count or None)
    return job


def show_job(job: Job, as_json: bool) -> None:
    """Print a job as it stands; exits with 1 if it failed or was cancelled."""
    _print_job(job, as_json)
    if job.state not in (JOB_STATE_RUNNING, JOB_STATE_SUCCEEDED):
        fail(job.error.message or "the job was cancelled")


def _print_job(job: Job, as_json: bool) -> None:
    if as_json:
        print_json(job)
    else:
        print_line(f"job {job.id}: {_state(job)}", _progress(job))


def _state(job: Job) -> str:
    return JobState.Name(job.state).removeprefix("JOB_STATE_").lower()


def _progress(job: Job) -> str:
    return f"{job.done_count} of {job.total_count}" * bool(job.total_count)
