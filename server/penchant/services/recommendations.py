"""RecommendationService: items for a user, an order for the caller's candidates, users for an item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np

from penchant import convert
from penchant.pages import coerce_page_size
from penchant.settings import Settings
from penchant.v1 import recommendation_service_pb2 as pb
from penchant.v1 import recommendation_service_pb2_grpc as pb_grpc
from penchant_pipelines.engine import Engine, attribution_token
from penchant_pipelines.errors import InvalidInput
from penchant_pipelines.profiles import Reason, Stored
from penchant_pipelines.recommend.recommender import Candidate, Query, Ranking

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class RecommendationService(pb_grpc.RecommendationServiceServicer):
    """Serves RecommendationService on an engine."""

    engine: Engine
    settings: Settings

    async def Recommend(self, request: pb.RecommendRequest, context: Context) -> pb.RecommendResponse:
        """Rank the catalogue for a user."""
        query = Query(
            limit=coerce_page_size(request.page_size, 20, self.settings.limits.page_size),
            filter=request.filter,
            excluded=frozenset(request.excluded_item_ids),
            include_seen=request.include_seen,
            diversity=request.diversity if request.HasField("diversity") else None,
            exploration=request.exploration if request.HasField("exploration") else None,
            vector=await self.engine.encode_query(request.query, "query"),
        )
        ranking, stored = await self.engine.recommend(request.user_id, query)
        return pb.RecommendResponse(
            recommendations=await self._recommendations(ranking, stored, request.explain),
            attribution_token=self._token("recommend", request.user_id, stored, ranking),
            degraded=ranking.degraded,
            space_id=self.engine.space_id,
        )

    async def Rerank(self, request: pb.RerankRequest, context: Context) -> pb.RerankResponse:
        """Rank the caller's own candidates."""
        ids = [candidate.item_id for candidate in request.candidates if candidate.item_id]
        if len(set(ids)) < len(ids):
            raise InvalidInput.at("candidates", "name an item twice; send each once")
        candidates = [
            Candidate(
                candidate.item_id,
                candidate.prior_score,
                await self.engine.encode_query(candidate.text, f"candidates[{index}].text")
                if candidate.item_id not in self.engine.catalog.entries
                else None,
            )
            for index, candidate in enumerate(request.candidates)
        ]
        ranking, missing, stored = await self.engine.rerank(
            request.user_id,
            candidates,
            request.top_n or len(candidates),
            request.prior_weight,
            request.diversity if request.HasField("diversity") else None,
            await self.engine.encode_query(request.query, "query"),
        )
        return pb.RerankResponse(
            recommendations=await self._recommendations(ranking, stored, request.explain),
            missing_item_ids=missing,
            attribution_token=self._token("rerank", request.user_id, stored, ranking),
            degraded=ranking.degraded,
        )

    async def FindUsers(self, request: pb.FindUsersRequest, context: Context) -> pb.FindUsersResponse:
        """Find the users who would want something."""
        if request.WhichOneof("target") == "text":
            target = await self.engine.encode_query(request.text, "text")
            if target is None:
                raise InvalidInput.at("text", "holds no words to look for")
        else:
            self.engine.item(request.item_id)
            entry = self.engine.catalog.entries[request.item_id]
            target = np.array(self.engine.catalog.vectors[entry.row])
        limit = coerce_page_size(request.page_size, 20, self.settings.limits.page_size)
        matches, degraded = await self.engine.find_users(target, limit, request.min_similarity)
        response = pb.FindUsersResponse(degraded=degraded)
        for match in matches:
            labels = self.engine.labels_at_hand(match.profile)
            named = {view.id: label.label for view, label in zip(match.profile.interests, labels, strict=True)}
            response.matches.add(
                user_id=match.user_id,
                interest_id=match.interest_id,
                label=named[match.interest_id],
                similarity=match.similarity,
                weight=match.weight,
            )
        return response

    async def _recommendations(self, ranking: Ranking, stored: Stored | None, explain: bool) -> list[pb.Recommendation]:
        reasons: Sequence[Sequence[Reason]] = [()] * len(ranking.places)
        if explain and stored is not None:
            reasons = await self.engine.reasons(stored, ranking)
        return [
            pb.Recommendation(
                item_id=place.item_id,
                score=place.score,
                interest_id=place.interest_id,
                evidence=map(convert.from_reason, why),
            )
            for place, why in zip(ranking.places, reasons, strict=True)
        ]

    def _token(self, kind: str, user_id: str, stored: Stored | None, ranking: Ranking) -> str:
        version = str(stored.version if stored else 0)
        return attribution_token(
            kind, user_id, version, self.engine.space_id, *(place.item_id for place in ranking.places)
        )
