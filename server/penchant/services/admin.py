"""AdminService: the state of the server, adapters, experiments, mixes, the index and long jobs."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import grpc

from penchant import convert
from penchant.errors import code_of
from penchant.pages import PageTokens
from penchant.settings import Settings
from penchant.v1 import admin_service_pb2 as pb
from penchant.v1 import admin_service_pb2_grpc as pb_grpc
from penchant_pipelines.engine import Engine
from penchant_pipelines.jobs import Job
from penchant_pipelines.mixes import MixVersion
from penchant_pipelines.spaces.adapters import AdapterState
from penchant_pipelines.spaces.experiment import Arm, Experiment, Interval
from penchant_pipelines.spaces.stock import Adapter

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
        encoder, limits = self.engine.live.encoder.encoder, self.settings.limits
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
            similarity=self.engine.live.blender.calibration.similarity,
            index_up=self.engine.live.relay.live is not None,
        )

    async def ListAdapters(self, request: pb.ListAdaptersRequest, context: Context) -> pb.ListAdaptersResponse:
        """List the adapters in memory, the encoder of the settings first."""
        adapters = self.engine.adapters
        return pb.ListAdaptersResponse(adapters=[_adapter(each, adapters.state(each)) for each in adapters.all()])

    async def LoadAdapter(self, request: pb.LoadAdapterRequest, context: Context) -> pb.LoadAdapterResponse:
        """Load an adapter from its folder."""
        adapter = await self.engine.adapters.load(request.adapter_id)
        return pb.LoadAdapterResponse(adapter=_adapter(adapter, self.engine.adapters.state(adapter)))

    async def ActivateAdapter(self, request: pb.ActivateAdapterRequest, context: Context) -> pb.ActivateAdapterResponse:
        """Start the job that brings all into an adapter's space and switches to it."""
        job = await self.engine.adapters.activate(request.adapter_id, request.standby)
        return pb.ActivateAdapterResponse(job=_job(job))

    async def UnloadAdapter(self, request: pb.UnloadAdapterRequest, context: Context) -> pb.UnloadAdapterResponse:
        """Drop an adapter with its space."""
        await self.engine.adapters.unload(request.adapter_id)
        return pb.UnloadAdapterResponse()

    async def StartExperiment(self, request: pb.StartExperimentRequest, context: Context) -> pb.StartExperimentResponse:
        """Serve a share of the users from a second space."""
        found = await self.engine.adapters.start_experiment(request.name, request.adapter_id, request.share)
        return pb.StartExperimentResponse(experiment=_experiment(found))

    async def StopExperiment(self, request: pb.StopExperimentRequest, context: Context) -> pb.StopExperimentResponse:
        """Serve everybody from the live space again."""
        return pb.StopExperimentResponse(experiment=_experiment(await self.engine.adapters.stop_experiment()))

    async def GetExperiment(self, request: pb.GetExperimentRequest, context: Context) -> pb.GetExperimentResponse:
        """Evaluate an experiment."""
        found, report = await self.engine.experiment(request.name)
        return pb.GetExperimentResponse(
            experiment=_experiment(found),
            control=_arm(report.control),
            trial=_arm(report.trial),
            positive_difference=_estimate(report.positive),
            negative_difference=_estimate(report.negative),
            positive_per_user_difference=_estimate(report.positive_per_user),
            negative_per_user_difference=_estimate(report.negative_per_user),
        )

    async def LearnMix(self, request: pb.LearnMixRequest, context: Context) -> pb.LearnMixResponse:
        """Start the job that learns a mix from the record."""
        return pb.LearnMixResponse(job=_job(await self.engine.learn_mix()))

    async def ListMixes(self, request: pb.ListMixesRequest, context: Context) -> pb.ListMixesResponse:
        """Page through mixes, newest first."""
        listing = self.tokens.listing(request, self.settings.limits.page_size)
        before = int(listing.cursor) if listing.cursor else None
        found = await self.engine.mixes.versions(before, listing.size + 1)
        page, token = listing.page([(str(number), _mix(version)) for number, version in found])
        return pb.ListMixesResponse(mixes=page, next_page_token=token)

    async def UseMix(self, request: pb.UseMixRequest, context: Context) -> pb.UseMixResponse:
        """Put a mix to use, or none."""
        live = await self.engine.mixes.use(request.mix_id)
        return pb.UseMixResponse(mix=None if live is None else _mix(live))

    async def RebuildIndex(self, request: pb.RebuildIndexRequest, context: Context) -> pb.RebuildIndexResponse:
        """Start a job that rebuilds the index beside the live one."""
        return pb.RebuildIndexResponse(job=_job(await self.engine.rebuild_index()))

    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> pb.GetJobResponse:
        """Read a job."""
        return pb.GetJobResponse(job=_job(await self.engine.jobs.get(request.job_id)))

    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:
        """Page through jobs, newest first."""
        listing = self.tokens.listing(request, self.settings.limits.page_size)
        before = int(listing.cursor) if listing.cursor else None
        found = await self.engine.jobs.list(before, listing.size + 1)
        page, token = listing.page([(str(number), _job(job)) for number, job in found])
        return pb.ListJobsResponse(jobs=page, next_page_token=token)

    async def CancelJob(self, request: pb.CancelJobRequest, context: Context) -> pb.CancelJobResponse:
        """Stop a running job."""
        return pb.CancelJobResponse(job=_job(await self.engine.jobs.cancel(request.job_id)))


def _adapter(adapter: Adapter, state: AdapterState) -> pb.Adapter:
    encoder = adapter.encoder
    return pb.Adapter(
        id=adapter.id,
        base_model=encoder.base_model,
        sha256=adapter.sha256,
        space_id=encoder.space_id,
        active=state is AdapterState.LIVE,
        load_time=convert.timestamp(adapter.load_time),
        metrics=adapter.metrics,
        state=pb.AdapterState.ValueType(state),
    )


def _experiment(experiment: Experiment) -> pb.Experiment:
    end = experiment.end_time
    return pb.Experiment(
        name=experiment.name,
        adapter_id=experiment.adapter_id,
        share=experiment.share,
        control_space_id=experiment.control_space_id,
        trial_space_id=experiment.trial_space_id,
        start_time=convert.timestamp(experiment.start_time),
        end_time=None if end is None else convert.timestamp(end),
    )


def _arm(arm: Arm) -> pb.GetExperimentResponse.Arm:
    return pb.GetExperimentResponse.Arm(
        space_id=arm.space_id,
        user_count=arm.users,
        list_count=arm.lists,
        signal_count=arm.signals,
        positive_rate=_estimate(arm.positive),
        negative_rate=_estimate(arm.negative),
        active_user_count=arm.active_users,
        positive_per_user=_estimate(arm.positive_per_user),
        negative_per_user=_estimate(arm.negative_per_user),
    )


def _estimate(interval: Interval) -> pb.GetExperimentResponse.Estimate:
    value, low, high = interval
    return pb.GetExperimentResponse.Estimate(value=value, low=low, high=high)


def _mix(version: MixVersion) -> pb.Mix:
    return pb.Mix(
        mix_id=version.id,
        create_time=convert.timestamp(version.create_time),
        weights=version.mix.named(),
        writer_weights=version.mix.for_writers().named(),
        favour_count=version.favour_count,
        lesson_count=version.lesson_count,
        quality=version.quality,
        quality_before=version.quality_before,
        live=version.live,
    )


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
        message.error.code = code_of(job.error_kind)
        message.error.message = job.error
    if job.end_time is not None:
        message.end_time.CopyFrom(convert.timestamp(job.end_time))
    return message
