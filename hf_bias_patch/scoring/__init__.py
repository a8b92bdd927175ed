"""TASKS AND METRICS: what a model is asked, as data, and how well it answers. Trains nothing."""
