"""Stock clients against a real Triton, our agent, and our agent behind the gateway: same calls, same answers.

python -m benchmarks.conformance
"""
