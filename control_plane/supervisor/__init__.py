"""`signalbox up`: starts, watches and ends everything on one machine."""
