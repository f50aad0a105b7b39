"""The figures of the two papers, made again from a study's results.

A module a figure, each with `draw(setting)`; `settings` and `sections` hold what they draw, `page` and `bars` how. What
is drawn of one task and encoder lies beside the numbers behind it, and `figures.json` names it all, with a sentence for
what could not be drawn.
"""

from ctrflow.figures.listing import index
from ctrflow.figures.study import draw_study

__all__ = ["draw_study", "index"]
