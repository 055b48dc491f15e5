"""Built-in handlers: what clients send to a model and get from it."""
