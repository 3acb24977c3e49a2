"""Report from when to when the machine's certificates hold."""

import glob
from collections.abc import Iterator
from typing import Final

from narthex_exporter.collectors.spec import (
    NoData,
    Node,
    Option,
    Sample,
    collector,
    gauge,
    limit_option,
)
from narthex_exporter.sources.certificates import Certificate, CertificateFiles
from narthex_exporter.sources.text import clean

_LABELS: Final = ("path", "subject")
NOT_AFTER = gauge(
    "narthex_certificate_not_after_timestamp_seconds",
    "When a certificate expires, in unixtime.",
    _LABELS,
)
NOT_BEFORE = gauge(
    "narthex_certificate_not_before_timestamp_seconds",
    "From when on a certificate holds, in unixtime.",
    _LABELS,
)
UNREADABLE = gauge(
    "narthex_certificate_unreadable_files",
    "How many files that should hold a certificate hold none that can be read.",
)
# Where servers and their tools put the certificates that they show; keys are not looked for.
_USUAL: Final = (
    "/etc/letsencrypt/live/*/cert.pem",
    "/etc/ssl/*.crt",
    "/etc/ssl/*.pem",
    "/etc/nginx/ssl/*.crt",
    "/etc/nginx/ssl/*.pem",
    "/etc/apache2/ssl/*.crt",
    "/etc/httpd/ssl/*.crt",
    "/etc/pki/tls/certs/localhost.crt",
    "/etc/haproxy/certs/*.pem",
    "/etc/postfix/*.pem",
    "/etc/dovecot/private/*.pem",
    "/etc/kubernetes/pki/*.crt",
    "/etc/cockpit/ws-certs.d/*.c*rt",
    "/etc/pve/local/pve-ssl.pem",
    "/var/lib/caddy/.local/share/caddy/certificates/*/*/*.crt",
)
# RFC 5280 bounds parts of a name, not how many there are.
_SUBJECT_LENGTH: Final = 200


def _patterns(text: str) -> tuple[str, ...]:
    patterns = tuple(filter(None, (part.strip() for part in text.split(","))))
    for pattern in patterns:
        if not pattern.startswith("/"):
            raise ValueError(f"{pattern!r} does not begin with a slash")
    return patterns


PATHS = Option(
    "paths",
    ",".join(_USUAL),
    _patterns,
    "Files with certificates: paths with wildcards, by comma.",
)
LIMIT = limit_option("max", 200, "How many files to report at most.")


def named(certificate: Certificate) -> str:
    """Give the label that tells whose certificate it is."""
    return clean(certificate.subject, limit=_SUBJECT_LENGTH)


@collector(
    name="certificates",
    metrics=(NOT_AFTER, NOT_BEFORE, UNREADABLE),
    options=(PATHS, LIMIT),
    every_seconds=300,
    limit_seconds=20,
    privileged=True,
)
def collect(node: Node) -> Iterator[Sample]:
    """Report from when to when the machine's certificates hold."""
    names = {
        name
        for pattern in node.setting(PATHS)
        for name in glob.iglob(pattern.lstrip("/"), root_dir=node.paths.root)  # noqa: PTH207 - as below another root
    }
    if not names:
        raise NoData("no file matches --collector.certificates.paths")
    files, unreadable = node.source(CertificateFiles), 0
    for name in node.capped(LIMIT, sorted(names)):
        found = files.get(node.paths.root / name)
        if found is None:
            unreadable += 1
            continue
        labels = (f"/{name}", named(found))
        yield NOT_AFTER.at(found.not_after.timestamp(), *labels)
        yield NOT_BEFORE.at(found.not_before.timestamp(), *labels)
    yield UNREADABLE.at(unreadable)
