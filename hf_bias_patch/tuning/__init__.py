"""Training chosen biases: what trains, in what order the data comes, the loop, the run folder, comparisons."""
