"""Images: file systems that others made, kept in a store and shared by all sandboxes.

An image comes as archives, its layers, each of which says what it adds to those beneath it and what it
takes away. All of it is somebody else's work and may be hostile. So:

  - Bytes enter the store by their digest (jail.images.store): what does not match is not kept.
  - What reads archives of layers, and writes what they ask for, is a confined program that sees nothing
    but the tree it works on (jail.images.unpacker).
  - A layer is found by the verified digests of archives, and by nothing that its unpacker says of it
    (jail.images.chains): one that an archive took over harms no image but those of that archive.
  - A layer can be found once it is whole, an image once all its layers are; until then there is nothing
    but what the next who opens the store takes away. Killing us at any moment costs time and nothing else.

The store's directory is an OCI image layout, which other tools read:

  oci-layout, index.json  the images, by manifest, with their names; replaced as a whole
  blobs/sha256/HEX        manifests, configurations and layers as they came
  layers/NAME/            a layer unpacked, in the form in which overlay mounts it
  chains/KEY              a link to a layer, by its archive and all beneath (jail.images.chains), for what an
                          archive means depends on what is beneath. KEY.json says what came of unpacking it
  spare                   room for an index.json when the disk is full: so something can be removed then
  incoming/               what is on its way: blobs by digest, and a directory for each process that writes

Three kinds of locks, all flock(2), which end with their holder:

  - the store's directory, for moments: whoever changes what names what;
  - a file in incoming, for as long as it takes: who fetches a blob or unpacks a layer. Others wait, and then
    find it there;
  - a manifest's blob, shared, by those who use the image: it stays for as long as one does.

And each writer's directory in incoming is locked by it, and lists what it needs that no image names yet, each
with the bytes that it may take up: nobody takes that away, and it counts as used. What works for a writer and
may outlive it for a moment, the unpacker, keeps a lock there, too: who sweeps waits for it.

After a power failure no more is left than after a kill: blobs are on the disk before they have their name,
and all layers of an image (syncfs(2)) before the index names it; what no index names is swept.
"""
