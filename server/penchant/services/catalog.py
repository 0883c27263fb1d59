"""CatalogService: the items that can be recommended."""

from __future__ import annotations

import asyncio
import bisect
from dataclasses import dataclass
from typing import Any

import grpc

from penchant import convert
from penchant.errors import to_status
from penchant.pages import PageTokens
from penchant.settings import Settings
from penchant.v1 import catalog_service_pb2 as pb
from penchant.v1 import catalog_service_pb2_grpc as pb_grpc
from penchant.validation import Validator
from penchant_pipelines.engine import Engine
from penchant_pipelines.errors import InvalidInput
from penchant_pipelines.recommend.filters import Filter, FilterError

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class CatalogService(pb_grpc.CatalogServiceServicer):
    """Serves CatalogService on an engine."""

    engine: Engine
    settings: Settings
    validator: Validator
    tokens: PageTokens

    async def UpsertItems(self, request: pb.UpsertItemsRequest, context: Context) -> pb.UpsertItemsResponse:
        """Add or replace items; each succeeds or fails alone."""
        response = pb.UpsertItemsResponse()
        sound: list[int] = []
        for index, item in enumerate(request.items):
            try:
                self.validator.check(item, f"items[{index}]")
            except InvalidInput as error:
                response.errors.add(index=index, id=item.id, status=to_status(error))
            else:
                sound.append(index)
        outcomes = await self.engine.upsert_items([convert.to_item(request.items[index]) for index in sound])
        for index, refusal in zip(sound, outcomes, strict=True):
            if refusal is None:
                response.upserted_count += 1
            else:
                status = to_status(convert.at(f"items[{index}]", refusal))
                response.errors.add(index=index, id=request.items[index].id, status=status)
        response.errors.sort(key=lambda error: error.index)
        return response

    async def GetItem(self, request: pb.GetItemRequest, context: Context) -> pb.GetItemResponse:
        """Read an item."""
        return pb.GetItemResponse(item=convert.from_item(self.engine.item(request.item_id)))

    async def ListItems(self, request: pb.ListItemsRequest, context: Context) -> pb.ListItemsResponse:
        """Page through the items that pass a filter, by id."""
        try:
            condition = Filter.parse(request.filter)
        except FilterError as error:
            raise InvalidInput.at("filter", str(error)) from error
        listing = self.tokens.listing(request, self.settings.limits.page_size, request.filter)
        items = [entry.item for entry in self.engine.catalog.entries.values()]

        def find() -> list[pb.Item]:
            ordered = sorted(items, key=lambda item: item.id)
            start = bisect.bisect_right(ordered, listing.cursor, key=lambda item: item.id) if listing.cursor else 0
            found = []
            for item in ordered[start:]:
                if condition.matches(item):
                    found.append(convert.from_item(item))
                    if len(found) > listing.size:
                        break
            return found

        page, token = listing.page(await asyncio.to_thread(find), lambda item: item.id)
        return pb.ListItemsResponse(items=page, next_page_token=token)

    async def DeleteItems(self, request: pb.DeleteItemsRequest, context: Context) -> pb.DeleteItemsResponse:
        """Delete items; unknown ids are no error."""
        return pb.DeleteItemsResponse(deleted_count=await self.engine.delete_items(list(request.item_ids)))
