"""What training does to biases, in memory and on the texts of the study."""
