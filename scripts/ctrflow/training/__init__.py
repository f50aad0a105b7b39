"""Results of a training: model file, losses and costs; and the memory it needs."""
