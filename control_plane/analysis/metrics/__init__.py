"""One file for each thing that must not get worse."""
