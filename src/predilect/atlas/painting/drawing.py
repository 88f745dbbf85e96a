"""The parameters of a drawing: what is painted, of whom, and what the record says of it."""

from __future__ import annotations

from dataclasses import dataclass

from predilect.atlas.photo import Photo

__all__ = ["Drawing", "Retouch", "Sitter"]


@dataclass(frozen=True, slots=True)
class Sitter:
    """What all photographs of one patient share.

    Attributes:
        tone: Step 1 (light) to 10 (dark) of the Monk Skin Tone scale.
        warmth: Undertone, -1 (cool) to 1 (warm).
        hair: Index of the hair's colour: black, dark brown, brown, fair, red, grey.
        hairiness: Body hair, 0 (little) to 1 (much).
        curl: Of the hair, 0 (straight) to 1.
        freckled: Texture of the skin, 0 (even) to 1 (mottled).
    """

    tone: int
    warmth: float
    hair: int
    hairiness: float
    curl: float
    freckled: float


@dataclass(frozen=True, slots=True)
class Retouch:
    """How a near-duplicate differs from the picture it was made from.

    Attributes:
        crop: Share of each side that is cut away, in all.
        left: How much of that is cut at the left, 0 to 1.
        top: How much of that is cut at the top, 0 to 1.
        gain: Brightness is multiplied by this.
    """

    crop: float
    left: float
    top: float
    gain: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """Everything that decides one picture, and the record that goes with it.

    Attributes:
        photo: The record, with gaps in what it tells.
        sitter: The person.
        site: What is drawn: a key of `bodies.BODIES`.
        kind: Which part or side of it: the raw name of the site.
        lesions: Raw terms of what is drawn, told or not: keys of `marks.MARKS`.
        scene_seed: Decides anatomy and eruption; the views of one eruption share it.
        view_seed: Decides camera, light and backdrop.
        close_up: Whether the camera is near, so that little of the body's outline shows.
        near_duplicate_of: The image_id this is a retouched copy of, or None.
        retouch: How it was retouched, or None.
    """

    photo: Photo
    sitter: Sitter
    site: str
    kind: str
    lesions: tuple[str, ...]
    scene_seed: int
    view_seed: int
    close_up: bool
    near_duplicate_of: str | None = None
    retouch: Retouch | None = None
