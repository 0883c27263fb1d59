"""AdminService: the state of the server, the index and long jobs."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import grpc
from google.rpc import code_pb2

from penchant import convert
from penchant.pages import PageTokens, coerce_page_size
from penchant.settings import Settings
from penchant.v1 import admin_service_pb2 as pb
from penchant.v1 import admin_service_pb2_grpc as pb_grpc
from penchant_pipelines.engine import Engine
from penchant_pipelines.errors import Unsupported
from penchant_pipelines.jobs import Job

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class AdminService(pb_grpc.AdminServiceServicer):
    """Serves AdminService on an engine."""

    engine: Engine
    settings: Settings
    tokens: PageTokens

    async def GetServerInfo(self, request: pb.GetServerInfoRequest, context: Context) -> pb.GetServerInfoResponse:
        """Tell what runs here, its limits and its counts."""
        users, items, signals, lag = await asyncio.to_thread(self.engine.counts)
        encoder, limits = self.engine.encoder.encoder, self.settings.limits
        return pb.GetServerInfoResponse(
            version=version("penchant"),
            space_id=encoder.space_id,
            base_model=encoder.base_model,
            adapter_id=encoder.adapter_id,
            device=encoder.device,
            dimensions=encoder.dimensions,
            max_batch_size=limits.batch_size,
            max_page_size=limits.page_size,
            max_text_bytes=limits.text_bytes,
            max_message_bytes=limits.message_bytes,
            user_count=users,
            item_count=items,
            signal_count=signals,
            index_lag=lag,
        )

    async def ListAdapters(self, request: pb.ListAdaptersRequest, context: Context) -> pb.ListAdaptersResponse:
        """Not served yet."""
        raise _no_adapters()

    async def LoadAdapter(self, request: pb.LoadAdapterRequest, context: Context) -> pb.LoadAdapterResponse:
        """Not served yet."""
        raise _no_adapters()

    async def ActivateAdapter(self, request: pb.ActivateAdapterRequest, context: Context) -> pb.ActivateAdapterResponse:
        """Not served yet."""
        raise _no_adapters()

    async def UnloadAdapter(self, request: pb.UnloadAdapterRequest, context: Context) -> pb.UnloadAdapterResponse:
        """Not served yet."""
        raise _no_adapters()

    async def RebuildIndex(self, request: pb.RebuildIndexRequest, context: Context) -> pb.RebuildIndexResponse:
        """Start a job that rebuilds the index beside the live one."""
        return pb.RebuildIndexResponse(job=_job(await self.engine.rebuild_index()))

    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> pb.GetJobResponse:
        """Read a job."""
        return pb.GetJobResponse(job=_job(await self.engine.jobs.get(request.job_id)))

    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:
        """Page through jobs, newest first."""
        size = coerce_page_size(request.page_size, 20, self.settings.limits.page_size)
        cursor = self.tokens.decode_token(request.page_token, "ListJobs", "")
        found = await self.engine.jobs.list(int(cursor) if cursor else None, size + 1)
        token = self.tokens.encode_token("ListJobs", "", str(found[size - 1][0])) if len(found) > size else ""
        return pb.ListJobsResponse(jobs=[_job(job) for _, job in found[:size]], next_page_token=token)

    async def CancelJob(self, request: pb.CancelJobRequest, context: Context) -> pb.CancelJobResponse:
        """Stop a running job."""
        return pb.CancelJobResponse(job=_job(await self.engine.jobs.cancel(request.job_id)))


def _no_adapters() -> Unsupported:
    return Unsupported("ADAPTERS_UNSUPPORTED", "this version serves one encoder and has no adapters to manage")


def _job(job: Job) -> pb.Job:
    message = pb.Job(
        id=job.id,
        kind=job.kind,
        state=pb.JobState.ValueType(job.state),
        done_count=job.done_count,
        total_count=job.total_count,
        create_time=convert.timestamp(job.create_time),
    )
    if job.error:
        message.error.code = code_pb2.INTERNAL
        message.error.message = job.error
    if job.end_time is not None:
        message.end_time.CopyFrom(convert.timestamp(job.end_time))
    return message
