"""Names of the metrics that agents export and that analysis reads: one definition, so they cannot drift."""

from typing import Final

REQUESTS_TOTAL: Final = "model_requests_total"
"""Counter {model_name, endpoint, version, transport, code}: answered requests; code as in HTTP."""
INFERENCE_DURATION_SECONDS: Final = "model_inference_duration_seconds"
"""Histogram {model_name, endpoint, version}: seconds the inference thread worked on a request."""
QUEUE_DURATION_SECONDS: Final = "model_queue_duration_seconds"
"""Histogram {model_name, endpoint, version}: seconds a request waited for the inference thread."""
REQUEST_DURATION_SECONDS: Final = "model_request_duration_seconds"
"""Histogram {model_name, endpoint, version}: seconds from a request's arrival to its answer."""
PREPROCESS_DURATION_SECONDS: Final = "model_preprocess_duration_seconds"
"""Histogram {model_name, endpoint, version}: seconds in the handler's `preprocess`."""
PREDICT_DURATION_SECONDS: Final = "model_predict_duration_seconds"
"""Histogram {model_name, endpoint, version}: seconds in the model itself."""
POSTPROCESS_DURATION_SECONDS: Final = "model_postprocess_duration_seconds"
"""Histogram {model_name, endpoint, version}: seconds in the handler's `postprocess`."""
BATCH_ROWS: Final = "model_batch_rows"
"""Histogram {model_name, endpoint, version}: rows of each executed batch, padding not counted."""
QUEUE_DEPTH: Final = "model_queue_depth"
"""Gauge {model_name, endpoint, version}: requests waiting for the inference thread."""
REJECTED_TOTAL: Final = "model_requests_rejected_total"
"""Counter {model_name, endpoint, version, reason}: requests answered with an error that is not the model's.

reason is the error's code.
"""
CACHE_HITS_TOTAL: Final = "model_cache_hits_total"
"""Counter {model_name, endpoint, version}: requests answered from the response cache."""
CACHE_MISSES_TOTAL: Final = "model_cache_misses_total"
"""Counter {model_name, endpoint, version}: requests looked up in the response cache and not found."""
CACHE_BYTES: Final = "model_cache_bytes"
"""Gauge {model_name, endpoint, version}: memory that cached answers take, in bytes."""
CHECK_STATE: Final = "model_check_state"
"""Gauge {model_name, endpoint, version, state}: 1 for the health checker's present state, else 0."""
MEMORY_USAGE_BYTES: Final = "model_memory_usage_bytes"
"""Gauge {model_name, endpoint, version, kind}: resident (rss) or device memory (cuda) in bytes."""
IN_FLIGHT: Final = "model_requests_in_flight"
"""Gauge {model_name, endpoint, version}: requests accepted and not yet answered."""
ANSWERS_TOTAL: Final = "model_answers_total"
"""Counter {model_name, endpoint, version}: answers of the model to requests that are part of a rollout.

Answers from the cache count like others: they are what clients get. Requests outside a rollout do not: what
this and the next two count would cost every one of them.
"""
NONFINITE_ANSWERS_TOTAL: Final = "model_nonfinite_answers_total"
"""Counter {model_name, endpoint, version}: of ANSWERS_TOTAL, those with a NaN or an infinity in an output."""
OUTPUT_CLASS_TOTAL: Final = "model_output_class_total"
"""Counter {model_name, endpoint, version, bin}: rows of ANSWERS_TOTAL by predicted class or by value.

bin: a class, or the power of two next to the mean of the row's first output (`+2^-3`); see
`serving_agent.answers`.
"""

DURATION_BUCKETS_S: Final = (
    0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075,
    0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0,
)  # fmt: skip
"""Upper bounds of every latency histogram, in seconds; Envoy uses the same bounds."""

COMPARED_BUCKETS_S: Final = tuple(
    bound_s
    for decade in range(-5, 1)
    for digits in (
        10, 11, 12, 13, 14, 15, 16, 17, 18, 20, 22, 24, 26, 28, 30, 33, 36, 39, 42, 46, 50, 54, 59, 64, 70,
        76, 83, 91,
    )
    if 0.00024 <= (bound_s := float(f"{digits}e{decade}")) <= 64
)  # fmt: skip
"""Upper bounds of the latency histograms of requests under comparison, in seconds: each about 2^(1/8) times
the one before (1.06 to 1.11 times).

Envoy keeps two significant digits of what it times: a bound with more would be counted at the next lower one
with two, and two neighbours would differ by nothing or by a fifth.
"""
