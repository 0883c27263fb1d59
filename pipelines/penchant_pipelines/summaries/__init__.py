"""Summaries of profiles in words, by a generative model that is asked in the background."""

from penchant_pipelines.summaries.models import LanguageModel, open_model
from penchant_pipelines.summaries.settings import SummarySettings
from penchant_pipelines.summaries.summaries import Summaries, Summary

__all__ = ["LanguageModel", "Summaries", "Summary", "SummarySettings", "open_model"]
