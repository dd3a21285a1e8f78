"""Certificates for tests: an authority of their own, and what it has signed."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from services.door.certificates import CertificateFiles


@dataclass(frozen=True)
class Authority:
    folder: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def path(self) -> Path:
        return self.folder / "ca.pem"

    def sign(self, name: str, *, common_name: str = "localhost", days: float = 1) -> CertificateFiles:
        """Make a certificate for this machine (or a client), and its key, in two files."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName(common_name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        made = _sign(common_name, key, self.certificate.subject, self.key, names, days)
        files = CertificateFiles(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        _write(files, made, key)
        return files


def make_authority(folder: Path) -> Authority:
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority of a test")])
    made = _sign("authority of a test", key, name, key, [], 1)
    authority = Authority(folder, key, made)
    authority.path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return authority


def replace(target: CertificateFiles, source: CertificateFiles) -> None:
    """Put a certificate in another's place, as tools that renew them do: both files anew, one after the other."""
    for old, new in ((target.cert, source.cert), (target.key, source.key)):
        draft = old.with_suffix(".new")
        draft.write_bytes(new.read_bytes())
        draft.replace(old)


def serial_number(files: CertificateFiles) -> int:
    return x509.load_pem_x509_certificate(files.cert.read_bytes()).serial_number


def _sign(
    common_name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    names: list[x509.DNSName | x509.IPAddress],
    days: float,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=2))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=not names, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _write(files: CertificateFiles, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    files.cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
