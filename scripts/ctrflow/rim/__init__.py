"""What lies around the called tumour of a section: distances to its rim, layers, and what is expressed in them."""
