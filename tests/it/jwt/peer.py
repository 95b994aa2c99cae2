"""Another implementation: mints and verifies tokens with PyJWT, as a line of JSON on stdin says."""

import json
import sys

import jwt

for line in sys.stdin:
    order = json.loads(line)
    try:
        if order["do"] == "mint":
            answer = jwt.encode(
                order["claims"], order["key"], algorithm=order["alg"], headers={"kid": order["kid"]}
            )
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
