"""Closes every port of SeaweedFS except S3's: the others require TLS with the store's own key.

By default SeaweedFS's master, volume server, filer and the gRPC port of its S3 server trust every client. The
`security.toml` written here makes them require a client certificate, in HTTP and in gRPC. One self-signed
certificate, new at each start, is server certificate, client certificate and authority.

`python -m distgan.storage.s3_server.security` prepares the current folder and prints the options for `weed server`.
"""

from __future__ import annotations

import datetime
import ipaddress
import secrets
import ssl
import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from distgan.storage.local_files import write_private

# Relative to the folder that `weed server` runs in: the path of a socket has at most 107 bytes.
_FOLDER = "inner"

_CERTIFICATE = f"{_FOLDER}/certificate.pem"

_KEY = f"{_FOLDER}/key.pem"

_NO_ORIGIN = "https://none.invalid"

OPTIONS = (
    f"-filer.localSocket={_FOLDER}/filer.sock",
    f"-s3.localSocket={_FOLDER}/s3.sock",
    f"-filer.allowedOrigins={_NO_ORIGIN}",
    f"-s3.allowedOrigins={_NO_ORIGIN}",
)


def secure(directory: Path) -> None:
    """Writes `security.toml`, a new key and its certificate into `directory`, for this user only."""
    folder = directory / _FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    write_private(directory / _KEY, key.private_bytes(encoding, form, serialization.NoEncryption()).decode())
    write_private(directory / _CERTIFICATE, _certificate(key).public_bytes(encoding).decode())
    write_private(directory / "security.toml", _configuration())


def client_context(directory: Path) -> ssl.SSLContext:
    """TLS settings for a client of the store's inner ports."""
    context = ssl.create_default_context(cafile=str(directory / _CERTIFICATE))
    context.load_cert_chain(directory / _CERTIFICATE, directory / _KEY)
    return context


def _certificate(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "distgan store")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=365))  # a clock that is set back later
        .not_valid_after(now + datetime.timedelta(days=36500))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _configuration() -> str:
    pair = f'cert = "{_CERTIFICATE}"\nkey = "{_KEY}"\n'
    authority = f'ca = "{_CERTIFICATE}"\n'
    sections = {"grpc": authority}
    sections |= {f"grpc.{part}": pair for part in ("master", "volume", "filer", "s3", "client")}
    sections |= {f"https.{part}": pair + authority for part in ("master", "volume", "filer")}
    sections["https.client"] = f"enabled = true\n{pair}{authority}"
    # The filer's Unix socket has no TLS.
    sections |= {f"jwt.filer_signing{kind}": f'key = "{secrets.token_hex(32)}"\n' for kind in ("", ".read")}
    sections["cors.allowed_origins"] = f'values = "{_NO_ORIGIN}"\n'
    return "".join(f"[{name}]\n{content}" for name, content in sections.items())


if __name__ == "__main__":
    secure(Path.cwd())
    print(*OPTIONS, file=sys.stdout)
