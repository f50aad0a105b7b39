"""Simulated sections: drawn tissue, rendered as an H&E image and as counts.

The regions and cells of `tissue` determine both histology and expression, so that the two agree as in a real section,
and disagree where the plan says so: benign ducts that look like cancer in situ, tumour that looks bland, tumour that
expresses nearly what normal glands do.
"""

from ctrflow.simulate.cohort import simulate_cohort
from ctrflow.simulate.section import Section, simulate_section
from ctrflow.simulate.tissue import Plan
from ctrflow.simulate.vendors import write_st, write_visium, write_xenium

__all__ = ["Plan", "Section", "simulate_cohort", "simulate_section", "write_st", "write_visium", "write_xenium"]
