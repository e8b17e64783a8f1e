"""Our own failures. A program's failure is never an exception: it is a result."""


class ExplainedError(Exception):
    """What an operator can mend.

    Attributes: `cause`, what was found; `cure`, what the operator can do about it.
    """

    def __init__(self, cause: str, cure: str) -> None:
        """Say what was found and what to do about it, a sentence each."""
        super().__init__(f"{cause} {cure}")
        self.cause = cause
        self.cure = cure


class HostError(ExplainedError):
    """The host cannot give what jail needs."""


class ImageError(ExplainedError):
    """An image cannot be had, kept or given away as asked: it is refused as a whole."""


class ImageTooLargeError(ImageError):
    """It has more bytes than it may have."""


class ImageNotFoundError(ImageError):
    """No image of the store has this name or digest."""


class ImageInUseError(ImageError):
    """Somebody holds the image: it stays."""


class StoreFullError(ImageError):
    """There is no room: of the disk, or of what the settings leave to the store."""


class PackageError(ExplainedError):
    """A problem package cannot be read or judged as it is: it is refused as a whole."""


class StoredFileError(ExplainedError):
    """A file cannot be kept, found or lent as asked: nothing has changed."""


class FileNotStoredError(StoredFileError):
    """Its owner has no such file, and none is published."""


class FileInUseError(StoredFileError):
    """A job or a download has the file: it stays, and counts, until that has ended."""


class FileTooLargeError(StoredFileError):
    """It has more bytes than a file may have."""


class FileDigestError(StoredFileError):
    """Its bytes are not what they were said to be."""


class FilesFullError(StoredFileError):
    """The owner's quota is taken up by what is in use or on its way: nothing more can be evicted."""


class FilesDiskFullError(StoredFileError):
    """The disk of the store is full."""


class SandboxError(Exception):
    """A sandbox could not be made or was lost; the program is not to blame, and a retry may succeed.

    Attributes: `stage`, where, in lower case as `enum stage` in message.h has it; `error`, the
    errno or 0; `index`, which of several things of one kind.
    """

    def __init__(self, stage: str, error: int = 0, index: int = 0) -> None:
        """Name the stage, the errno value and the index."""
        super().__init__(f"stage {stage}, errno {error}, index {index}")
        self.stage = stage
        self.error = error
        self.index = index
