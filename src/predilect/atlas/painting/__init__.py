"""Photographs of skin drawn by code: bodies, lesions, hair and light, each a function of seeds alone."""

from predilect.atlas.painting.drawing import Drawing, Retouch, Sitter
from predilect.atlas.painting.picture import paint

__all__ = ["Drawing", "Retouch", "Sitter", "paint"]
