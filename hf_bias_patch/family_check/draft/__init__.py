"""Drafts the family of a model type from what small random models show: sites, what they read, what closes a road."""
