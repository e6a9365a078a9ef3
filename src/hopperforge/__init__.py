"""hopperforge: FlashAttention-3, compiled once, bound many times."""

__version__ = "0.1.0"
