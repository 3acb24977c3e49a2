"""Say a key as six words, so that two people, or two screens, can compare it."""

import hashlib
from typing import Final

WORDS: Final = (
    "able", "acid", "acorn", "actor", "album", "alley", "amber", "angle", "ankle", "apple",
    "april", "apron", "arena", "arrow", "aspen", "atlas", "attic", "audio", "autumn",
    "badge", "baker", "bamboo", "banjo", "barley", "basil", "basket", "beach", "bean",
    "beaver", "bench", "berry", "birch", "bison", "blanket", "blossom", "bonus", "border",
    "bottle", "branch", "brass", "bread", "breeze", "brick", "bridge", "broom", "bucket",
    "bundle", "butter", "button", "cabin", "cactus", "camel", "candle", "canoe", "canvas",
    "canyon", "carbon", "carpet", "castle", "cedar", "cello", "cherry", "chess", "chimney",
    "cider", "cinema", "circle", "citrus", "clay", "cliff", "clock", "clover", "cobalt",
    "cocoa", "comet", "compass", "copper", "coral", "cotton", "cradle", "crater", "cricket",
    "crystal", "curtain", "cypress", "dairy", "daisy", "dancer", "delta", "denim", "desert",
    "diamond", "dinner", "dolphin", "domino", "dragon", "drum", "eagle", "earth", "easel",
    "echo", "elbow", "ember", "empire", "engine", "fabric", "falcon", "feather", "fern",
    "ferry", "fiddle", "field", "flag", "flame", "flute", "forest", "fossil", "fountain",
    "fox", "frost", "galaxy", "garden", "garlic", "gazelle", "ginger", "glacier", "globe",
    "glove", "granite", "grape", "guitar", "hammer", "harbor", "harvest", "hazel", "helmet",
    "heron", "hockey", "honey", "horizon", "hotel", "icicle", "igloo", "indigo", "island",
    "ivory", "jacket", "jaguar", "jasmine", "jelly", "jersey", "jigsaw", "jungle", "kayak",
    "kettle", "kitchen", "kiwi", "ladder", "lagoon", "lantern", "lark", "lava", "lemon",
    "lentil", "library", "lilac", "lime", "linen", "lizard", "lobster", "lotus", "lunar",
    "magnet", "mango", "maple", "marble", "meadow", "melon", "metal", "meteor", "mirror",
    "monsoon", "mosaic", "mountain", "museum", "mustard", "napkin", "nectar", "needle",
    "nickel", "nutmeg", "oasis", "oatmeal", "ocean", "olive", "onion", "opera", "orbit",
    "orchid", "otter", "oxygen", "oyster", "paddle", "panda", "paper", "parrot", "peach",
    "peanut", "pebble", "pelican", "pencil", "pepper", "piano", "picnic", "pigeon", "pillow",
    "pilot", "pirate", "planet", "plaza", "pocket", "poem", "polar", "pond", "pony",
    "poplar", "potato", "prairie", "prism", "puzzle", "quartz", "quilt", "rabbit", "radar",
    "raven", "ribbon", "river", "robin", "rocket", "saddle", "saffron", "sailor", "salmon",
    "sandal", "saturn", "scarf", "shadow", "silver", "sparrow", "spider", "spruce", "summit",
    "sunset", "tango", "thunder", "tiger",
)  # fmt: skip


def six_words(public_key_info: bytes) -> str:
    """Give the first 48 bits of a key's SHA-256 as words; the key is DER SubjectPublicKeyInfo.

    It is for comparing a key that both sides hold, in the minutes of an enrolment; what is
    trusted afterwards is the certificate.
    """
    return " ".join(WORDS[byte] for byte in hashlib.sha256(public_key_info).digest()[:6])
