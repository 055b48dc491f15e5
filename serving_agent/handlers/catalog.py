"""The built-in handlers, one dotted module name each, and the allow-list for operators' own ones."""

from __future__ import annotations

from importlib import import_module
from typing import Final, cast

from serving_agent.errors import StartError
from serving_agent.model_server import ModelServer

MODULES: Final = (
    "serving_agent.handlers.tensor",
    "serving_agent.handlers.image_classification",
    "serving_agent.handlers.text_classification",
    "serving_agent.handlers.embedding",
    "serving_agent.handlers.score",
)


def handlers() -> tuple[type[ModelServer], ...]:
    """Return every built-in handler, in the catalogue's order; imports no torch."""
    return tuple(cast(type[ModelServer], import_module(module).HANDLER) for module in MODULES)


def names() -> tuple[str, ...]:
    """Return the built-in handlers' names."""
    return tuple(handler.name for handler in handlers())


def get(name: str, allowed: tuple[str, ...] = ()) -> type[ModelServer]:
    """Return the handler called *name*: a built-in one, or `module:Class` where *allowed* lists exactly that.

    A custom handler's module is imported only once it is known to be allowed. Raises StartError.
    """
    if ":" in name:
        return _custom(name, allowed)
    for handler in handlers():
        if handler.name == name:
            return handler
    raise StartError(f"unknown handler {name!r}; known handlers are {', '.join(names())}")


def _custom(name: str, allowed: tuple[str, ...]) -> type[ModelServer]:
    if name not in allowed:
        raise StartError(f"handler {name!r} is not in the list of allowed handlers")
    module, _, attribute = name.partition(":")
    try:
        handler = getattr(import_module(module), attribute)
    except (ImportError, AttributeError):
        raise StartError(f"handler {name!r} cannot be imported") from None
    if not (isinstance(handler, type) and issubclass(handler, ModelServer)):
        raise StartError(f"handler {name!r} is not a subclass of ModelServer")
    return handler
