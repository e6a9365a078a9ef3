"""Verifying ed25519 with whole numbers: the vectors of RFC 8032, and the same judgement as a library's."""

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from hopperforge.node.ed25519 import _ORDER, _P, verify_ed25519

# RFC 8032, 7.1: tests 1, 2, 3 and SHA(abc): secret key, public key, message, signature
VECTORS = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
            "d25bf5f0595bbe24655141438e7a100b"
        ),
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
            "387b2eaeb4302aeeb00d291612bb0c00"
        ),
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        (
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659"
            "4a7c15e9716ed28dc027beceea1ec40a"
        ),
    ),
    (
        "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        (
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
            "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
        ),
        (
            "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e030"
            "3dca179c138ac17ad9bef1177331a704"
        ),
    ),
]


@pytest.mark.parametrize(("secret", "public", "message", "signature"), VECTORS)
def test_the_vectors_of_the_rfc_are_good_and_nothing_near_them_is(
    secret: str, public: str, message: str, signature: str
) -> None:
    key, text, signed = (bytes.fromhex(one) for one in (public, message, signature))
    assert Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret)).sign(text) == signed
    assert verify_ed25519(key, text, signed)
    assert not verify_ed25519(key, text + b"\0", signed)
    for index in (0, 31, 32, 63):
        changed = bytearray(signed)
        changed[index] ^= 1
        assert not verify_ed25519(key, text, bytes(changed))
    assert not verify_ed25519(bytes([key[0] ^ 1, *key[1:]]), text, signed)
    assert not verify_ed25519(key, text, signed[:63])
    assert not verify_ed25519(key[:31], text, signed)


def test_a_second_form_of_a_good_signature_is_none() -> None:
    _, public, message, signature = VECTORS[1]
    signed = bytes.fromhex(signature)
    answer = int.from_bytes(signed[32:], "little") + _ORDER
    assert not verify_ed25519(
        bytes.fromhex(public), bytes.fromhex(message), signed[:32] + answer.to_bytes(32, "little")
    )


@pytest.mark.parametrize("number", [0, 1, _P - 1, _P, _P + 1, 1 | 1 << 255])
def test_a_key_with_which_anything_would_be_signed_is_refused(number: int) -> None:
    # points of small order, and forms of them that are not the right one: R = A, S = 0 would do for some messages
    key = number.to_bytes(32, "little")
    assert not any(verify_ed25519(key, bytes([text]), key + bytes(32)) for text in range(8))
    neutral = (1).to_bytes(32, "little")
    assert not any(verify_ed25519(key, bytes([text]), neutral + bytes(32)) for text in range(8))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.binary(min_size=32, max_size=32),
    message=st.binary(max_size=200),
    change=st.integers(0, 511),
    flip=st.booleans(),
)
def test_it_judges_as_a_library_does(seed: bytes, message: bytes, change: int, flip: bool) -> None:
    private = Ed25519PrivateKey.from_private_bytes(seed)
    public, signature = private.public_key().public_bytes_raw(), bytearray(private.sign(message))
    signature[change // 8] ^= flip << change % 8
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(bytes(signature), message)
        good = True
    except InvalidSignature:
        good = False
    assert verify_ed25519(public, message, bytes(signature)) is good
    assert good is not flip
