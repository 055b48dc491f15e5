"""The example inputs a version was registered with, as the agent's warm-up and health checker run them."""

from __future__ import annotations

import logging
from pathlib import Path

from serving_agent import json_body, predict_codec, validation
from serving_agent.batch import Inputs, is_batchable
from serving_agent.contract.signature import Signature
from serving_agent.errors import AgentError

logger = logging.getLogger(__name__)


def read(path: Path | None, signature: Signature) -> Inputs | None:
    """Return one row of the JSON file at *path*, by input name; None where nothing in it fits *signature*.

    A handler may take other inputs than the version was registered with; then the agent makes its own up.
    """
    if path is None:
        return None
    try:
        request = predict_codec.request_of(json_body.parse(path.read_bytes()), "", signature)
        inputs = validation.decode_inputs(signature, request.inputs, "pass")
    except (OSError, AgentError) as error:
        logger.warning("the example inputs cannot be used: %s", error)
        return None
    return {name: array[:1] for name, array in inputs.items()} if is_batchable(signature) else inputs
