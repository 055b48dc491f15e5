"""What is worked out of inspected runs: values that were kept, two runs side by side, tokens, reports."""
