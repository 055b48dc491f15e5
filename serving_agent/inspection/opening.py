"""The artefact with its handler, as an agent has it when it serves."""

from __future__ import annotations

from pathlib import Path

from serving_agent import device, warm_up
from serving_agent.contract.inspection import InspectionOrder
from serving_agent.formats import catalog as formats
from serving_agent.handlers import catalog as handlers
from serving_agent.model_server import ModelContext, ModelServer


def opened(order: InspectionOrder) -> ModelServer:
    """Open the artefact and bring it into the form that the endpoint's options ask for.

    Raises StartError, and whatever the model's own code raises.
    """
    handler = handlers.get(order.handler, order.allowed_handlers)
    server = handler()
    server.context = ModelContext(
        artifact_dir=Path(order.folder),
        format=formats.get(order.format),
        signature=handler.served_signature(order.signature, order.labels),
        model_signature=order.signature,
        labels=order.labels,
        device=device.resolve(order.device),
    )
    server.load_model(server.context)
    if not order.execution.is_default:
        warm_up.optimise(server, order.execution, row=None)
    return server
