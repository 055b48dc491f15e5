"""What the evidence says of a candidate: statistics and verdicts, all of it pure."""
