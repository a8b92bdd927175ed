"""LIVE MODELS: chooses the class, loads, runs in float64, makes inputs of every kind, tells names. Judges nothing."""
