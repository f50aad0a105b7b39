"""From scores to tables: calls, metrics, comparisons between methods and with the printed numbers."""
