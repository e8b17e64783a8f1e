"""The unpacker's program: it makes a layer's archive a directory, where nothing outside has a name.

jail.images.unpacker starts it; its messages are in `messages`, and who may do what is in `confinement`.
"""
