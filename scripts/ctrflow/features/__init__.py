"""Feature processing that methods share: blocks, scaling, neighbours, clusters, memory banks, marker genes."""
