"""The figures of the two papers, reproduced from a study's results, and two of what lies around the tumours.

One module per figure, each with `draw(setting)`; `settings`, `sections` and `around` prepare the data, `page`
and `bars` the layout. Each figure of a task and encoder is stored with its numbers; `figures.json` lists all, and why a
figure could not be drawn.
"""

from ctrflow.figures.listing import index
from ctrflow.figures.study import draw_study

__all__ = ["draw_study", "index"]
