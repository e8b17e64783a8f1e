"""Small file systems for images, with programs of this host in them."""

import hashlib
import io
import json
import platform
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]

# What a merged-/usr system has; ldd(1) names libraries by these links.
LINKS = {"bin": "usr/bin", "lib": "usr/lib", "lib64": "usr/lib64", "sbin": "usr/sbin"}


def programs(*names):
    """The entries that these programs need to run: by path, what `archive` takes."""
    found = {}
    for name in names:
        program = Path(shutil.which(name)).resolve()
        found[f"usr/bin/{name}"] = program
        for library in _libraries(program):
            found[f"usr{library}" if not library.startswith("/usr/") else library[1:]] = Path(
                library
            ).resolve()
    return {**LINKS, **found}


def archive(entries, **about):
    """A tar archive, as bytes: by path, an entry's bytes, a Path of this host, a link's target, or None.

    None is a directory. about: what else is set of each TarInfo.
    """
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, content in entries.items():
            info = tarfile.TarInfo(path)
            body = content.read_bytes() if isinstance(content, Path) else content
            info.mode = 0o755 if isinstance(content, Path) or content is None else 0o644
            if content is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(body, str):
                info.type, info.linkname = tarfile.SYMTYPE, body
            else:
                info.size = len(body)
            for name, value in about.items():
                setattr(info, name, value)
            tar.addfile(info, io.BytesIO(body) if isinstance(body, bytes) else None)
    return target.getvalue()


def image(*layers, **settings):
    """An OCI archive, as bytes, of archives of layers, the lowest first; settings: of its configuration."""
    blobs = {}

    def keep(media_type, content):
        digest = hashlib.sha256(content).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = content
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    def document(media_type, value):
        return keep(f"application/vnd.oci.image.{media_type}.v1+json", json.dumps(value).encode())

    described = [keep("application/vnd.oci.image.layer.v1.tar", layer) for layer in layers]
    config = {
        "architecture": ARCHITECTURE,
        "os": "linux",
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in described]},
    }
    manifest = {"schemaVersion": 2, "config": document("config", config), "layers": described}
    index = {"schemaVersion": 2, "manifests": [document("manifest", manifest)]}
    return archive(
        {
            "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
            "index.json": json.dumps(index).encode(),
            **blobs,
        }
    )


def _libraries(program):
    told = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    return re.findall(r"(/\S+) \(0x", told)
