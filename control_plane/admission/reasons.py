"""Reason codes of the admission check: stable names, listed in docs/reference/reason-codes.md."""

from __future__ import annotations

from enum import StrEnum


class ReasonCode(StrEnum):
    """Why an upload is let in or not. Values never change; new ones may be added."""

    # let in
    PLAIN_WEIGHTS = "plain-weights"
    CONVERTED_WEIGHTS = "converted-weights"
    PROGRAM = "program"

    # what was received
    EMPTY_UPLOAD = "empty-upload"
    EMPTY_FILE = "empty-file"
    UNSAFE_NAME = "unsafe-name"
    NOT_A_FILE = "not-a-file"
    TOO_MANY_FILES = "too-many-files"
    SEVERAL_FILES = "several-files"

    # containers
    BROKEN_ARCHIVE = "broken-archive"
    HOSTILE_ARCHIVE = "hostile-archive"
    ARCHIVE_BOMB = "archive-bomb"
    NESTED_ARCHIVE = "nested-archive"
    CHECK_EXCEEDED_LIMITS = "check-exceeded-limits"
    TOO_LARGE_TO_READ = "too-large-to-read"
    BROKEN_JSON = "broken-json"
    COMPRESSED_WEIGHTS = "compressed-weights"
    NO_TENSORS = "no-tensors"
    UNSUPPORTED_TENSOR = "unsupported-tensor"
    BIG_ENDIAN = "big-endian"

    # known kinds that are not served
    FULL_MODULE_PICKLE = "full-module-pickle"
    STATE_DICT = "state-dict"
    RAW_PICKLE = "raw-pickle"
    TORCH_PACKAGE = "torch-package"
    ONNX = "onnx"
    HDF5 = "hdf5"
    NUMPY = "numpy"
    PLAIN_ARCHIVE = "plain-archive"
    NATIVE_CODE = "native-code"
    SOURCE_CODE = "source-code"
    UNKNOWN_FORMAT = "unknown-format"

    # programs
    BROKEN_PROGRAM = "broken-program"
    NO_FORWARD = "no-forward"
    UNSUPPORTED_ARGUMENTS = "unsupported-arguments"
    UNSUPPORTED_RESULTS = "unsupported-results"
    FILE_ACCESS = "file-access"
    UNEXPECTED_MEMBER = "unexpected-member"
    UNEXPECTED_PICKLE = "unexpected-pickle"
    FREE_EXPRESSION = "free-expression"
    FOREIGN_OPERATOR = "foreign-operator"
    OLD_EXPORTED_PROGRAM = "old-exported-program"
    EXTERNAL_DATA = "external-data"

    # Hugging Face folders
    MISSING_CONFIG = "missing-config"
    MISSING_WEIGHTS = "missing-weights"
    MISSING_TOKENIZER = "missing-tokenizer"
    PICKLED_WEIGHTS = "pickled-weights"
    BROKEN_WEIGHTS = "broken-weights"
    REMOTE_CODE = "remote-code"
    UNSAFE_TEMPLATE = "unsafe-template"
    UNEXPECTED_FILE = "unexpected-file"
    LANGUAGE_MODEL = "language-model"
    UNSUPPORTED_ARCHITECTURE = "unsupported-architecture"

    # trying an accepted program
    DOES_NOT_LOAD = "does-not-load"
    DOES_NOT_RUN = "does-not-run"
    TIMED_OUT = "timed-out"
    OUT_OF_MEMORY = "out-of-memory"
    CRASHED = "crashed"
    SIGNATURE_MISMATCH = "signature-mismatch"
    HANDLER_MISMATCH = "handler-mismatch"
