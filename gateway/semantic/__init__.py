"""Embeddings of questions, and the search among them: what similarity needs beside `policy.semantic_*`.

Numpy and onnxruntime are of the extra `tollgate[semantic]`; of these modules, `parts` alone does without.
"""
