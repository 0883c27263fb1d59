"""Embedding spaces: one at work, and how others are loaded, built beside it, tried on users and switched to."""
