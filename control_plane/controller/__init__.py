"""The level-triggered controller: observe one snapshot, plan (pure), execute in order."""
