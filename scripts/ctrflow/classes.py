"""The two classes of tissue: their values in labels, drawings and calls, and their words."""

CLASSES = {1: "cancer", 0: "other"}
