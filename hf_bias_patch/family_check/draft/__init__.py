"""Drafts the family of a model type from what small models show: sites, what they read, what closes a destination."""
