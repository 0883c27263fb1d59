"""CatalogService: the items that can be recommended."""

from __future__ import annotations

import asyncio
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
from penchant_pipelines.record import rows

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
        entries = self.engine.catalog.entries

        def find() -> list[tuple[str, pb.Item]]:
            found = []
            # In the record ids are in order; in memory each page would have to sort them all.
            with self.engine.record.read() as connection:
                for item_id in rows.item_ids(connection, listing.cursor):
                    entry = entries.get(item_id)
                    if entry is not None and condition.matches(entry.item):
                        found.append((item_id, convert.from_item(entry.item)))
                        if len(found) > listing.size:
                            break
            return found

        page, token = listing.page(await asyncio.to_thread(find))
        return pb.ListItemsResponse(items=page, next_page_token=token)

    async def DeleteItems(self, request: pb.DeleteItemsRequest, context: Context) -> pb.DeleteItemsResponse:
        """Delete items; unknown ids are no error."""
        return pb.DeleteItemsResponse(deleted_count=await self.engine.delete_items(list(request.item_ids)))
