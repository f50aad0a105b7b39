"""What a training leaves: the model file, the losses, what it cost; and the memory it needs."""
