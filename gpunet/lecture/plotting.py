"""The look of the lecture's figures, which is that of all figures."""

from gpunet.plotting import COLOURS, DIVERGING_MAP, MAP, MARKERS, STYLES, label, panels

__all__ = ["COLOURS", "DIVERGING_MAP", "MAP", "MARKERS", "STYLES", "label", "panels"]
