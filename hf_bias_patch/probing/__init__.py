"""WHAT A MODEL DOES, measured: runs models in float64 and says which attention biases move the output."""
