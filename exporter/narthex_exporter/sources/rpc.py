"""Read what NFS clients and servers did: /proc/net/rpc/nfs and nfsd."""

from typing import Final

# In the kernel's order, with node_exporter's names: fs/nfs/nfs{2,3,4}xdr.c.
V2: Final = (
    *("Null", "GetAttr", "SetAttr", "Root", "Lookup", "ReadLink", "Read", "WrCache", "Write"),
    *("Create", "Remove", "Rename", "Link", "SymLink", "MkDir", "RmDir", "ReadDir", "FsStat"),
)
V3: Final = (
    *("Null", "GetAttr", "SetAttr", "Lookup", "Access", "ReadLink", "Read", "Write", "Create"),
    *("MkDir", "SymLink", "MkNod", "Remove", "RmDir", "Rename", "Link", "ReadDir"),
    *("ReadDirPlus", "FsStat", "FsInfo", "PathConf", "Commit"),
)
CLIENT_V4: Final = (
    *("Null", "Read", "Write", "Commit", "Open", "OpenConfirm", "OpenNoattr", "OpenDowngrade"),
    *("Close", "Setattr", "FsInfo", "Renew", "SetClientID", "SetClientIDConfirm", "Lock"),
    *("Lockt", "Locku", "Access", "Getattr", "Lookup", "LookupRoot", "Remove", "Rename", "Link"),
    *("Symlink", "Create", "Pathconf", "StatFs", "ReadLink", "ReadDir", "ServerCaps"),
    *("DelegReturn", "GetACL", "SetACL", "FsLocations", "ReleaseLockowner", "Secinfo"),
    *("FsidPresent", "ExchangeID", "CreateSession", "DestroySession", "Sequence"),
    *("GetLeaseTime", "ReclaimComplete", "GetDeviceInfo", "LayoutGet", "LayoutCommit"),
    *("LayoutReturn", "SecinfoNoName", "TestStateID", "FreeStateID", "GetDeviceList"),
    *("BindConnToSession", "DestroyClientID", "Seek", "Allocate", "DeAllocate"),
    *("LayoutStats", "Clone"),
)
# Operations by their number in the protocol, from 3 on; None is what node_exporter leaves out.
SERVER_V4: Final = (
    *(None, None, None, "Access", "Close", "Commit", "Create", "DelegPurge", "DelegReturn"),
    *("GetAttr", "GetFH", "Link", "Lock", "Lockt", "Locku", "Lookup", "LookupRoot", "Nverify"),
    *("Open", "OpenAttr", "OpenConfirm", "OpenDgrd", "PutFH", None, None, "Read", "ReadDir"),
    *("ReadLink", "Remove", "Rename", "Renew", "RestoreFH", "SaveFH", "SecInfo", "SetAttr"),
    *("SetClientID", "SetClientIDConfirm", "Verify", "Write", "RelLockOwner"),
)


def parse_rpc(text: str) -> dict[str, list[int]]:
    """Give the numbers of each line by its first word; a line with a broken number is skipped.

    Fractions, which old kernels told of threads, are cut off.
    """
    found = {}
    for line in text.splitlines():
        name, *words = line.split() or [""]
        try:
            numbers = [int(word.partition(".")[0]) for word in words]
        except ValueError:
            continue
        if numbers:
            found[name] = numbers
    return found


def calls(numbers: list[int], names: tuple[str | None, ...]) -> list[tuple[str, int]]:
    """Name the calls of a line that begins with how many there are, the known ones."""
    pairs = zip(names, numbers[1:], strict=False)
    return [(name, number) for name, number in pairs if name is not None]
