"""Files that callers send once and name in many jobs, by the SHA-256 of their bytes.

The file system is the database. A store is a directory:

    store               says that it is one
    owned/KEY/DIGITS    a file, whole: its bytes are what its name says. KEY is made of its owner's name.
                        Its access time is when it was last used; more than one link: a job has it
    owned/KEY/.NAME     one on its way, locked by who writes it, and as long as what is reserved for it
    published/DIGITS    what the operator lets everybody read; nobody's quota, and never evicted
    lent/PROCESS/N      links for one job to what it uses: box/PATH and stdin. PROCESS is locked by its own

A file appears by rename(2), once its bytes are on the disk: so nothing half-made is ever found, and what a
dead process left is what nobody has locked. Owners share nothing, the same bytes neither: nobody learns from
quota, answers or times what others have. An owner's quota is counted with the owner's directory locked; other
owners do not wait for that.
"""

from jail.files.desk import Desk
from jail.files.digest import PATTERN, is_digest
from jail.files.incoming import Incoming, Kept
from jail.files.lent import Lent
from jail.files.store import Bounds, Files, Stored

__all__ = ["PATTERN", "Bounds", "Desk", "Files", "Incoming", "Kept", "Lent", "Stored", "is_digest"]
