"""What the control plane and the serving agent agree on: manifest, metric names, wire constants, protocol."""
