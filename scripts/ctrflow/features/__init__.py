"""What methods share in reading their tables: blocks, scales, neighbours, clusters, memory banks, marker genes."""
