"""Pure values and rules: no clock, no I/O, no logging."""
