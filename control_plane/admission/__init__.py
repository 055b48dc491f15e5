"""The parse-only gate: judges received files without running, unpickling or importing anything of theirs."""
