"""The catalogue: items, their vectors and words, and what the crowd makes of them."""

from penchant_pipelines.catalog.catalog import POPULARITY_HALF_LIFE_DAYS, Catalog, Entry
from penchant_pipelines.catalog.keeper import Keeper

__all__ = ["POPULARITY_HALF_LIFE_DAYS", "Catalog", "Entry", "Keeper"]
