"""Live models of transformers: choosing the class, loading, memory, names, inputs and running in float64."""
