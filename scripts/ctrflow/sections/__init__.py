"""A section as its spots, its labels apart from them, and whether both belong to its image."""
