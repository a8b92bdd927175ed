"""Scores of models on tasks: tasks as data, reading and encoding of data, metrics, evaluation. Trains nothing."""
