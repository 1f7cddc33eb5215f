"""Signed tokens of the cases: a case has ``<<name>>`` where a token is to be."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from functools import cache
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

Json = dict[str, Any]

SECRET = b"a secret of the issuer"
FOREVER = 4_102_444_800
ISSUER = "https://issuer.test"


def _encoded(data: bytes | Json) -> str:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _number(value: int, length: int | None = None) -> str:
    return _encoded(value.to_bytes(length or (value.bit_length() + 7) // 8, "big"))


@cache
def _rsa() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@cache
def _ec() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@cache
def _ed25519() -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


@cache
def keys() -> str:
    """The keys of the issuer."""
    of_rsa = _rsa().public_key().public_numbers()
    of_ec = _ec().public_key().public_numbers()
    raw = _ed25519().public_key().public_bytes_raw()
    return json.dumps(
        {
            "keys": [
                {"kty": "oct", "alg": "HS256", "kid": "secret", "k": _encoded(SECRET)},
                {"kty": "RSA", "kid": "rsa", "n": _number(of_rsa.n), "e": _number(of_rsa.e)},
                {
                    "kty": "EC",
                    "crv": "P-256",
                    "alg": "ES256",
                    "kid": "ec",
                    "x": _number(of_ec.x, 32),
                    "y": _number(of_ec.y, 32),
                },
                {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": "ed", "x": _encoded(raw)},
            ]
        }
    )


def _signature(algorithm: str, message: bytes, secret: bytes) -> bytes:
    match algorithm:
        case "RS256":
            return _rsa().sign(message, padding.PKCS1v15(), hashes.SHA256())
        case "PS384":
            pss = padding.PSS(padding.MGF1(hashes.SHA384()), hashes.SHA384.digest_size)
            return _rsa().sign(message, pss, hashes.SHA384())
        case "ES256":
            r, s = decode_dss_signature(_ec().sign(message, ec.ECDSA(hashes.SHA256())))
            return r.to_bytes(32, "big") + s.to_bytes(32, "big")
        case "EdDSA":
            return _ed25519().sign(message)
        case _:
            return hmac.new(secret, message, hashlib.sha256).digest()


def token(
    payload: Json | bytes | None = None,
    header: Json | bytes | None = None,
    *,
    algorithm: str = "HS256",
    secret: bytes = SECRET,
    **claims: Any,
) -> str:
    """A token of the issuer."""
    if payload is None:
        payload = {"iss": ISSUER, "sub": "ann", "exp": FOREVER, "aud": "api.test"} | claims
    if header is None:
        header = {"alg": algorithm, "typ": "JWT"}
    message = f"{_encoded(header)}.{_encoded(payload)}"
    return f"{message}.{_encoded(_signature(algorithm, message.encode(), secret))}"


@cache
def tokens() -> dict[str, str]:
    """The tokens by their names."""
    good = token()
    head, _, signature = good.rpartition(".")
    claims: Json = {
        "name": "Ann",
        "admin": True,
        "level": 7,
        "ratio": 1.5,
        "debt": -2,
        "groups": ["a", "b"],
        "org": {"unit": {"id": "u1"}, "list": [1]},
        "nothing": None,
        "empty": "",
        "email": "ann@test",
    }
    return {
        "good": good,
        "claims": token(**claims),
        "rs256": token(algorithm="RS256"),
        "ps384": token(algorithm="PS384"),
        "es256": token(algorithm="ES256"),
        "eddsa": token(algorithm="EdDSA"),
        "kid": token(header={"alg": "HS256", "kid": "secret"}),
        "kid-unknown": token(header={"alg": "HS256", "kid": "other"}),
        "kid-of-other": token(header={"alg": "HS256", "kid": "rsa"}),
        "kid-number": token(header={"alg": "HS256", "kid": 7}),
        "none": f"{_encoded({'alg': 'none'})}.{_encoded({'iss': ISSUER})}.",
        "no-alg": token(header={"typ": "JWT"}),
        "alg-number": token(header={"alg": 7}),
        "alg-unknown": token(header={"alg": "XS256"}),
        "hs384": token(header={"alg": "HS384"}),
        "header-json": token(header=b"nothing"),
        "header-base64": "a+b." + head.split(".")[1] + "." + signature,
        "payload-json": token(payload=b"nothing"),
        "payload-base64": head.split(".")[0] + ".a+b." + signature,
        "signature-base64": head + ".a+b",
        "signature-other": token(secret=b"of somebody else"),
        "signature-empty": head + ".",
        "two-parts": head,
        "four-parts": good + ".x",
        "expired": token(exp=1),
        "early": token(nbf=FOREVER),
        "no-exp": token(payload={"iss": ISSUER, "aud": "api.test"}),
        "exp-text": token(exp="soon"),
        "exp-negative": token(exp=-1),
        "nbf-text": token(nbf="soon"),
        "iat-text": token(iat="then"),
        "sub-number": token(sub=7),
        "jti-number": token(jti=7),
        "iss-other": token(iss="https://other.test"),
        "iss-missing": token(payload={"aud": "api.test"}),
        "iss-number": token(iss=7),
        "aud-other": token(aud="other.test"),
        "aud-list": token(aud=["x", "https://api.test/"]),
        "aud-missing": token(payload={"iss": ISSUER}),
        "aud-number": token(aud=7),
        "second": token(iss="https://second.test", aud="second"),
        "second-expired": token(iss="https://second.test", aud="second", exp=1),
        "second-aud": token(iss="https://second.test", aud="x"),
    }


_NAME = re.compile(r"<<([a-z0-9-]+)>>")


def filled(value: Any) -> Any:
    """A case with its tokens."""
    if isinstance(value, str):
        return _NAME.sub(lambda found: tokens()[found[1]], value)
    if isinstance(value, list):
        return [filled(one) for one in value]
    if isinstance(value, dict):
        return {key: filled(one) for key, one in value.items()}
    return value
