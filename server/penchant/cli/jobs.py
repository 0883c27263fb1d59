"""Jobs as commands show them: how far they are, and how they ended."""

from __future__ import annotations

import time

from penchant.cli.errors import fail
from penchant.cli.output import print_json, print_line, progress
from penchant.client import Client
from penchant.v1.admin_service_pb2 import JOB_STATE_RUNNING, JOB_STATE_SUCCEEDED, Job, JobState

POLL_SECONDS = 0.5


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
    if as_json:
        print_json(job)
    else:
        state = JobState.Name(job.state).removeprefix("JOB_STATE_").lower()
        print_line(f"job {job.id}: {state}", f"{job.done_count} of {job.total_count}" * bool(job.total_count))
    if job.state not in (JOB_STATE_RUNNING, JOB_STATE_SUCCEEDED):
        fail(job.error.message or "the job was cancelled")
