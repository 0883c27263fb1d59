"""RecommendationService: items for a user, an order for the caller's candidates, users for an item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from penchant import convert
from penchant.pages import coerce_page_size
from penchant.settings import Settings
from penchant.v1 import recommendation_service_pb2 as pb
from penchant.v1 import recommendation_service_pb2_grpc as pb_grpc
from penchant_pipelines.engine import Engine
from penchant_pipelines.errors import InvalidInput
from penchant_pipelines.profiles import Reason, Stored
from penchant_pipelines.recommend.recommender import Candidate, Query, Ranking, Shortlist
from penchant_pipelines.spaces.experiment import attribution_token
from penchant_pipelines.spaces.space import Space

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class RecommendationService(pb_grpc.RecommendationServiceServicer):
    """Serves RecommendationService on an engine."""

    engine: Engine
    settings: Settings

    async def Recommend(self, request: pb.RecommendRequest, context: Context) -> pb.RecommendResponse:
        """Rank the catalogue for a user."""
        with self.engine.serve(request.user_id) as space:
            query = Query(
                limit=coerce_page_size(request.page_size, 20, self.settings.limits.page_size),
                filter=request.filter,
                excluded=frozenset(request.excluded_item_ids),
                include_seen=request.include_seen,
                diversity=request.diversity if request.HasField("diversity") else None,
                exploration=request.exploration if request.HasField("exploration") else None,
                vector=await space.encode_query(request.query, "query"),
            )
            visit = await space.visit(request.user_id)
            ranking = await space.recommend(visit, query)
            recommendations = await _recommendations(space, ranking, visit.stored, request.explain)
        return pb.RecommendResponse(
            recommendations=recommendations,
            attribution_token=_token(space, "recommend", request.user_id, visit.stored, ranking),
            degraded=ranking.degraded,
            space_id=space.space_id,
        )

    async def Rerank(self, request: pb.RerankRequest, context: Context) -> pb.RerankResponse:
        """Rank the caller's own candidates."""
        ids = [candidate.item_id for candidate in request.candidates if candidate.item_id]
        if len(set(ids)) < len(ids):
            raise InvalidInput.at("candidates", "name an item twice; send each once")
        with self.engine.serve(request.user_id) as space:
            query = await space.encode_query(request.query, "query")
            visit = await space.visit(request.user_id)
            vectors = await self._given(space, request.candidates)
            candidates = [
                Candidate(candidate.item_id, candidate.prior_score, vectors.get(index))
                for index, candidate in enumerate(request.candidates)
            ]
            shortlist = Shortlist(
                candidates,
                limit=request.top_n or len(candidates),
                prior_weight=request.prior_weight,
                diversity=request.diversity,
                vector=query,
            )
            ranking, missing = space.rerank(visit, shortlist)
            recommendations = await _recommendations(space, ranking, visit.stored, request.explain)
        return pb.RerankResponse(
            recommendations=recommendations,
            missing_item_ids=filter(None, missing),
            attribution_token=_token(space, "rerank", request.user_id, visit.stored, ranking),
            degraded=ranking.degraded,
            space_id=space.space_id,
        )

    async def _given(self, space: Space, candidates: Sequence[pb.Candidate]) -> dict[int, NDArray[np.float32] | None]:
        """Read the texts of candidates that are not in the catalogue, by position; some may leave it meanwhile."""
        known = self.engine.catalog.entries
        vectors: dict[int, NDArray[np.float32] | None] = {}
        while wanted := [
            index
            for index, candidate in enumerate(candidates)
            if candidate.text and candidate.item_id not in known and index not in vectors
        ]:
            texts = [(candidates[index].text, f"candidates[{index}].text") for index in wanted]
            vectors.update(zip(wanted, await space.encode_queries(texts), strict=True))
        return vectors

    async def FindUsers(self, request: pb.FindUsersRequest, context: Context) -> pb.FindUsersResponse:
        """Find the users who would want something: all of them in the live space, which alone makes them comparable."""
        with self.engine.serve() as space:
            if request.WhichOneof("target") == "text":
                if request.exclude_seen:
                    raise InvalidInput.at("exclude_seen", "goes with item_id: nobody is known to have seen a text")
                categories: Sequence[str] = ()
                target = await space.encode_query(request.text, "text")
                if target is None:
                    raise InvalidInput.at("text", "holds no words to look for")
            else:
                categories = self.engine.item(request.item_id).categories
                entry = self.engine.catalog.entries[request.item_id]
                target = np.array(self.engine.catalog.vectors[space.key][entry.row])
            limit = coerce_page_size(request.page_size, 20, self.settings.limits.page_size)
            unseen = request.item_id if request.exclude_seen else ""
            matches, degraded = await space.find_users(target, limit, request.min_similarity, categories, unseen)
            labels = await space.names([(match.profile, match.interest_id) for match in matches])
        response = pb.FindUsersResponse(degraded=degraded, space_id=space.space_id)
        for match, label in zip(matches, labels, strict=True):
            response.matches.add(
                user_id=match.user_id,
                interest_id=match.interest_id,
                label=label,
                similarity=match.similarity,
                weight=match.weight,
            )
        return response


async def _recommendations(
    space: Space, ranking: Ranking, stored: Stored | None, explain: bool
) -> list[pb.Recommendation]:
    reasons: Sequence[Sequence[Reason]] = [()] * len(ranking.places)
    if explain and stored is not None:
        reasons = await space.reasons(stored, ranking)
    return [
        pb.Recommendation(
            item_id=place.item_id,
            score=place.score,
            interest_id=place.interest_id,
            evidence=map(convert.from_reason, why),
            sources=[pb.SourceShare(source=source, share=share) for source, share in place.sources if explain],
            chance=place.chance,
            candidate_index=place.candidate,
        )
        for place, why in zip(ranking.places, reasons, strict=True)
    ]


def _token(space: Space, kind: str, user_id: str, stored: Stored | None, ranking: Ranking) -> str:
    version = str(stored.version if stored else 0)
    names = (place.item_id or f"#{place.candidate}" for place in ranking.places)
    return attribution_token(space.space_id, kind, user_id, version, *names)
