"""Tests on stock Debian systems, booted under qemu's emulation; scripts/test-vm runs this.

Nothing here needs root, on this machine: images are built in a user namespace, and qemu is an
ordinary program. Rooms, from the bottom up:

recipe      what images are made of: recipe.toml, read
archives    where this machine's own apt gets Debian from
suite       packages of any suite, unpacked
kernel      the newest kernel of a suite, unpacked
build       one image, made within a user namespace of its own: root/ is copied into it
process     other programs, which never outlive us
wheels      what jail and its tests need of Python packages
image       the images, each built once and kept by a digest of all that it is made of
job         what crosses: a tar archive with the job, and one with the answer
machine     qemu's command line, and how it ends
plan        which tests run where, and as whom
report      how many ran, passed and were skipped, as a table
options     what scripts/test-vm may be told

In the machine, a unit of root/ runs agent.py, which crosses with the job: it installs the wheel, runs
the job and answers; then the machine is switched off.
"""
