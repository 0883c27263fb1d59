"""Interests: how signals blend into several of them per user, and how they read at a moment."""

from penchant_pipelines.interests.blend import Blender, Event, Recipe, Trace, standing, undone_ids
from penchant_pipelines.interests.calibration import Calibration, calibrate
from penchant_pipelines.interests.evidence import STEERING, Evidence, SteeringEvent
from penchant_pipelines.interests.settings import InterestSettings, Weighing
from penchant_pipelines.interests.state import Interest, Profile, pack, unpack
from penchant_pipelines.interests.view import (
    Contribution,
    InterestView,
    ProfileView,
    Trend,
    best_terms,
    explain,
    unweighed_view,
    view,
)

__all__ = [
    "STEERING",
    "Blender",
    "Calibration",
    "Contribution",
    "Event",
    "Evidence",
    "Interest",
    "InterestSettings",
    "InterestView",
    "Profile",
    "ProfileView",
    "Recipe",
    "SteeringEvent",
    "Trace",
    "Trend",
    "Weighing",
    "best_terms",
    "calibrate",
    "explain",
    "pack",
    "standing",
    "undone_ids",
    "unpack",
    "unweighed_view",
    "view",
]
