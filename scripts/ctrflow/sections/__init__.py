"""Sections: aggregation of cells to spots, labels (kept separate from the data), and checks against the image."""
