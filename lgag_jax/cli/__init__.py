"""What a user types: modes, flags, help and shell completion.

May import: config, inputs, methods, options, runtime.
"""
