"""Operators out of scope, and why."""

from __future__ import annotations

from .registry import refuse

refuse("Loop", "Scan", reason="loops are not unrolled; export the model with a fixed number of steps")
refuse(
    "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength",
    "SequenceMap", "SplitToSequence", "ConcatFromSequence", "Optional", "OptionalGetElement", "OptionalHasElement",
    reason="sequence and optional types are not supported",
)  # fmt: skip
refuse(
    "StringConcat", "StringNormalizer", "StringSplit", "RegexFullMatch", "TfIdfVectorizer",
    reason="strings are not supported",
)  # fmt: skip
refuse(
    "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
    reason="a random result has no fixed meaning",
)  # fmt: skip
refuse("ImageDecoder", reason="decoding image files is not part of a network")
refuse("*", domain="ai.onnx.preview.training", reason="training operators are not supported")
refuse("*", domain="ai.onnx.training", reason="training operators are not supported")
refuse("*", domain="ai.onnx.ml", reason="trees, encoders and other classical machine learning are not supported")
refuse("NonMaxSuppression", "Unique", reason="the shape of the result depends on the data; cut the model before it")
