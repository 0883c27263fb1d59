"""The record: signals, items, profiles and all that must not be lost, in one SQL database."""

from penchant_pipelines.record.record import Record
from penchant_pipelines.record.writer import Writer, nothing

__all__ = ["Record", "Writer", "nothing"]
