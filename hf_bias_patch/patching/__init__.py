"""WHAT CHANGES: a recipe, resolved into a plan for one checkpoint, executed in memory or on disk, and undone."""
