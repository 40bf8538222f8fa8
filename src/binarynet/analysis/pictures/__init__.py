"""The paper's figures for one's own networks, as pictures for a talk. Needs matplotlib; the rest of analysis does not.

Colours are Okabe and Ito's (the colour-blind can tell them apart), what the paper has is thin and grey, and lines are
labelled where they end.
"""

from binarynet.analysis.pictures._style import Picture, render
from binarynet.analysis.pictures.gallery import pictures

__all__ = ["Picture", "pictures", "render"]
