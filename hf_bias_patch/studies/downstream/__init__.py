"""Scores on tasks without each bias."""
