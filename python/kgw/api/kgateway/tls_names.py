"""Names in the TLS of backends that the engine knows."""

from __future__ import annotations

from typing import Final

#: The curves that keys are agreed on with, by the names of BoringSSL, and those of the engine.
CURVES: Final = {
    "X25519": "X25519",
    "P-256": "P-256",
    "prime256v1": "P-256",
    "secp256r1": "P-256",
    "P-384": "P-384",
    "secp384r1": "P-384",
}

#: The algorithms of signatures (RFC 8446 4.2.3).
SIGNATURE_ALGORITHMS: Final = (
    "ecdsa_secp256r1_sha256",
    "ecdsa_secp384r1_sha384",
    "ed25519",
    "rsa_pkcs1_sha256",
    "rsa_pkcs1_sha384",
    "rsa_pkcs1_sha512",
    "rsa_pss_rsae_sha256",
    "rsa_pss_rsae_sha384",
    "rsa_pss_rsae_sha512",
)
