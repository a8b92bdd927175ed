"""EVIDENCE: measures that a variant computes what its source computes. Writes certificates, and edits nothing else."""
