"""What leads to a layer: nothing that anybody says of what is in it."""

import hashlib

from jail.images import chains, oci
from jail.images.oci import Descriptor

A, B = (Descriptor(f"{oci.LAYER_TYPE}+gzip", f"sha256:{digit * 64}", 1) for digit in "ab")


def of(words):
    return hashlib.sha256(words.encode()).hexdigest()


def test_keys_are_of_archives_as_they_came_and_of_all_beneath():
    first = of(f" {A.digest} gzip")
    assert chains.keys([A]) == (first,)
    assert chains.keys([A, B]) == (first, of(f"{first} {B.digest} gzip"))
    assert chains.keys([B, A])[1] != chains.keys([A, B])[1]


def test_what_is_read_in_another_way_is_another_layer():
    docker = Descriptor("application/vnd.docker.image.rootfs.diff.tar.gzip", A.digest, 1)
    plain = Descriptor(oci.LAYER_TYPE, A.digest, 1)
    assert chains.keys([docker]) == chains.keys([A]) != chains.keys([plain])
