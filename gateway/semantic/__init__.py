"""Embeddings of questions, and the search among them: what similarity needs beside `policy.semantic_*`.

Numpy and onnxruntime are of the extra `tollgate[semantic]`; of these modules, `parts` alone does without.
"""

import os

# Numpy's library of linear algebra reads it when it is loaded, which is after this. Its threads wait by spinning: for
# products as small as ours, on cores that carry traffic, they take much and give nothing.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
