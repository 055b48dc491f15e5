"""The example: two small networks that read handwritten digits, really trained, in seconds."""
