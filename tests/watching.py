"""Hooks that only look: a store takes a model with them, as with the package's own."""

from skact.models import _hooks


def watch(module, hook, *, after=False, **options):
    """Register a forward pre-hook, or a hook that runs after the module."""
    register = module.register_forward_hook if after else module.register_forward_pre_hook
    handle = register(hook, **options)
    _hooks._OURS[handle.id] = ""
    return handle
