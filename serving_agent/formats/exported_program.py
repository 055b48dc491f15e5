"""Exported programs: one `.pt2` file written by `torch.export.save`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from serving_agent.contract.signature import Signature
from serving_agent.formats.base import PositionalModel, only_file


class ExportedProgram:
    """Opens programs of torch.export."""

    name = "exported_program"
    title = "torch.export program"
    description = "One .pt2 file written by torch.export.save; a program."
    is_program = True

    def load(self, artifact_dir: Path, device: str, signature: Signature) -> PositionalModel:
        """Open the program and move it to *device*; it was exported in eval mode or it was not."""
        import torch

        program = torch.export.load(only_file(artifact_dir, ".pt2"))
        if device != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, device)
        return PositionalModel(program.module(), signature)


FORMAT: Final = ExportedProgram()
