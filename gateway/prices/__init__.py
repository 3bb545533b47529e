"""Price catalogues: compiling them from the data of genai-prices, loading them, and the operator's overrides.

Layer: `prices` may do file I/O and imports `policy`, `config` and `call`. Only `prices.compile` imports genai-prices
(0.4 s, 30 MB), and only the short-lived process that compiles imports `prices.compile`.
"""
