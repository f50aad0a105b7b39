"""The scale of a section: known arrays (`arrays`), how spots lie (`lattice`), what decides µm per px (`settle`)."""
