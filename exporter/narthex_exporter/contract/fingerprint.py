"""Say a key in six words that two people can compare by reading them aloud."""

import hashlib
from typing import Final

# One byte each: never change the order, for nodes of other releases show the same words.
WORDS: Final = tuple(
    """
    acid acorn actor agent album alarm alder amber anchor angle ankle apple april apron arch
    arena arrow aspen atlas attic autumn axle bacon badge baker bamboo banjo barley barn
    basil basin basket beach beacon bean bear beaver bell belt bench berry birch bishop
    bison blanket blossom boat bonnet book boot border bottle bowl branch brass bread breeze
    brick bridge bronze brook broom brush bucket button cabin cable cactus camel canal
    candle canoe canvas carbon cargo carpet carrot castle cedar cellar chain chalk cherry
    chess chest chisel cider cinema circus clay cliff clock cloud clover coal cobalt cocoa
    comet copper coral corn cotton cradle crane crater cricket crown crystal cup curtain
    daisy dance deer desert diamond dinner dolphin donkey door dragon drum duck dune eagle
    earth easel echo elbow elder elm ember engine falcon feather fern ferry fiddle field
    finch flame flint flour flute forest fossil fox frost garden garlic ginger glacier globe
    goat gold goose grain granite grape grass gravel guitar hammer harbor harp hawk hazel
    heron hill honey horse house icicle island ivory ivy jacket jasmine jelly jewel kayak
    kettle key kite ladder lagoon lake lamp lantern lemon lily lime linen lion lizard lotus
    magnet maple marble meadow melon meteor mill mint mirror moon moss mountain mustard
    napkin nest nickel north oak oasis oat ocean olive onion opal orange orchid otter owl
    oyster paddle palm panda paper parrot peach pearl pebble pencil pepper piano pigeon
    pillow pine planet plum pony poppy potato prairie pumpkin quail quartz rabbit raven reef
    ribbon river robin rocket saddle salmon
    """.split()  # noqa: SIM905 - a list of 256 literals would be 256 lines
)
_COUNT: Final = 6


def six_words(public_key_info: bytes) -> str:
    """Name a key (DER SubjectPublicKeyInfo), 48 bits behind a slow hash.

    Takes some 50 ms and 16 MiB, so that nobody can search for another key with the same words.
    """
    digest = hashlib.scrypt(
        public_key_info, salt=b"narthex-fingerprint-v1", n=1 << 14, r=8, p=1, dklen=_COUNT
    )
    return " ".join(WORDS[byte] for byte in digest)
