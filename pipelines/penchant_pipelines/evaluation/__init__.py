"""Evaluation: real logs replayed through the engine and through everything that it must beat."""
