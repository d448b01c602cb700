"""The version, in a module that imports nothing. It is that of pyproject.toml."""
__version__ = '0.1.0'
