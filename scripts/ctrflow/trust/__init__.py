"""Whether a map can be trusted: level, calibrated probability, verdict (docs/trust.md)."""
