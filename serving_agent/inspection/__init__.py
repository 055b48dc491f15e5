"""The process that looks inside a model for the debugger: `python -m serving_agent.inspection FD`.

It opens an artefact as an agent does, sends one request through `pipeline` plainly and once more while a
capture records every layer or node, and writes what it saw. It serves nobody, and dies with its parent.
"""
