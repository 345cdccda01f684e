"""Models, hooks, activation capture and sparse autoencoders.

Importing this package, `interpedia_engine.hooks`, `.errors`, `.saes.config` or `.saes.files` imports no
torch.
"""

__version__ = "0.1.0"
