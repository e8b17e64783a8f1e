"""Languages: what a source becomes, a compilation and a run, and which of them an image can have.

`definitions` reads languages.toml, `expansion` is the pure way from a source to the two programs, and
`toolchains` asks the tools themselves, in sandboxes of the image.
"""
