"""What the studies need besides the package: its extra ``studies``."""
from importlib import metadata

from inceptionnext_seg._requirements import release


def require(**versions):
    """Compare the version of each distribution with the least one expected, without importing it.

    Raises:
        ImportError: One is missing or too old; names the extra that installs it.
    """
    for name, expected in versions.items():
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            found = None
        if found is None or release(found) < release(expected):
            raise ImportError(f"the studies need {name} >= {expected}, found {found or 'none'}. "
                              "Next: pip install -e '.[studies]'")


require(scipy='1.11', matplotlib='3.8')
