"""Which items for which user: candidates, scores, filters."""
