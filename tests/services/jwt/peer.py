"""Another implementation: mints and verifies tokens with PyJWT, as a line of JSON on stdin says."""

import json
import sys

import jwt
from cryptography.hazmat.primitives.serialization import load_pem_public_key


def publish(kid, alg, pem):
    """The JWK of a public key in PEM; a modulus gets a leading zero octet, as from libraries for signed integers."""
    algorithm = jwt.get_algorithm_by_name(alg)
    jwk = algorithm.to_jwk(load_pem_public_key(pem.encode()))
    jwk = (json.loads(jwk) if isinstance(jwk, str) else jwk) | {"kid": kid, "use": "sig"}
    if "n" in jwk:
        jwk["n"] = encode(b"\0" + jwt.utils.base64url_decode(jwk["n"]))
    return jwk


def encode(octets):
    return jwt.utils.base64url_encode(octets).decode()


for line in sys.stdin:
    order = json.loads(line)
    try:
        if order["do"] == "mint":
            answer = jwt.encode(
                order["claims"],
                order["key"],
                algorithm=order["alg"],
                headers={"kid": order["kid"], "typ": order.get("typ", "JWT")},
            )
        elif order["do"] == "publish":
            answer = json.dumps({"keys": [publish(**key) for key in order["keys"]]})
        elif order["do"] == "verify":
            answer = jwt.decode(
                order["token"],
                order["key"],
                algorithms=[order["alg"]],
                issuer=order["iss"],
                audience=order["aud"],
                options={"require": ["sub", "jti", "iat", "exp"]},
            )
        else:
            # A key of the published set, by its id.
            keys = jwt.PyJWKSet.from_dict(json.loads(order["jwk_set"])).keys
            kid = jwt.get_unverified_header(order["token"])["kid"]
            key = next(key.key for key in keys if key.key_id == kid)
            answer = jwt.decode(order["token"], key, algorithms=[order["alg"]], audience=order["aud"])
    except jwt.PyJWTError as error:
        answer = {"error": type(error).__name__}
    print(json.dumps(answer), flush=True)
