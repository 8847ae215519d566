"""The documents that the measured JSON becomes, one module each."""
