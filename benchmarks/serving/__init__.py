"""The serving benchmark: the same torch model in several servers, side by side."""
