"""timm, which only the vision transformers need."""

from types import ModuleType


def import_timm() -> ModuleType:
    """Imports timm.

    Raises:
        ImportError: It is not installed.
    """
    try:
        import timm
        import timm.layers
        import timm.models
    except ImportError as error:
        raise ImportError(
            f'The vision transformers of mmforget are built by timm, which cannot be imported '
            f'({error}). Install it: pip install "mmforget[vit]".'
        ) from error
    return timm
