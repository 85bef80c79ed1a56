"""All rules, each a function from a build to what is wrong with it."""

from . import rules_config, rules_links, rules_pods
from .model import System

ALL = [*rules_pods.RULES, *rules_links.RULES, *rules_config.RULES]


def broken(system, names=None):
    """What the rules of these names, or all, find. One that stumbles has found something as well."""
    for rule in ALL:
        if names is None or rule.__name__ in names:
            try:
                yield from rule(system)
            except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
                yield f"{rule.__name__}: {type(error).__name__}: {error}"


__all__ = ["ALL", "System", "broken"]
